"""What was said so far, and the prompt that goes on from it: token by token as it was decoded, wherever that can be.

A decoder reads nothing twice of a prompt that begins with the tokens decoded last (`Decoder.prefill`, ``go_on``). Text
that is encoded again does not always come out as the tokens that were decoded, so those are kept.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

from skulk_core.decode.session import Outcome, Session


@dataclass(frozen=True)
class Prompt:
    """What was said last, the whole text up to where the answer begins, and its tokens."""

    said: str
    text: str
    tokens: tuple[int, ...]


class Conversation(abc.ABC):
    """Remembers what was answered; whoever asks decodes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.reset()

    @property
    def num_tokens(self) -> int:
        """Tokens of all that was said and answered."""
        return len(self._tokens)

    def reset(self) -> None:
        """Begin anew."""
        self._texts: tuple[str, ...] = ()
        self._tokens: tuple[int, ...] = ()

    @property
    @abc.abstractmethod
    def goes_on_by_itself(self) -> bool:
        """Whether more can be decoded without anything being said."""

    @abc.abstractmethod
    def after(self, said: str) -> Prompt:
        """The prompt if ``said`` is said now; nothing is remembered yet. Raises `PromptError`."""

    @abc.abstractmethod
    def answered(self, prompt: Prompt, outcome: Outcome) -> None:
        """Remember what was said and what came of it, as far as it came."""

    def _taken(self, prompt: Prompt, outcome: Outcome) -> None:
        """Append both. Of an answer that lost a stop string, what is left of its last token is encoded again."""
        tokens = list(outcome.tokens)
        while not outcome.text.startswith(text := self._session.text_of(tokens)):
            tokens.pop()
        rest = outcome.text[len(text) :]
        self._tokens = (*prompt.tokens, *tokens, *(self._session.encode_more(rest) if rest else ()))
        # a template may write the answer without the space that it began with, or with one that its text has lost
        space = self._first_space(prompt, tokens)
        answers = (outcome.text.removeprefix(" "), outcome.text, space + outcome.text)
        self._texts = tuple(prompt.text + answer for answer in answers)

    def _first_space(self, prompt: Prompt, tokens: Sequence[int]) -> str:
        """What the first token begins with and an answer's text does not: a template may write it."""
        before = self._session.text_of(prompt.tokens[-1:])
        shown, whole = self._session.text_of(tokens), self._session.text_of([prompt.tokens[-1], *tokens])
        between = whole.removeprefix(before).removesuffix(shown)
        return between if whole == before + between + shown and between.isspace() else ""


class TemplatedConversation(Conversation):
    """Through the tokenizer's chat template.

    Some templates write an earlier answer otherwise than it was decoded (without its thinking, for one). Then the
    prompt does not begin with the text decoded last, and the whole conversation is read again.
    """

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self._messages: list[dict[str, str]] = []

    @property
    def goes_on_by_itself(self) -> bool:
        """Never: the template asks for turns."""
        return False

    def after(self, said: str) -> Prompt:
        """As the template writes it."""
        messages = [*self._messages, {"role": "user", "content": said}]
        text = self._session.render_chat(messages)
        for held in self._texts:
            if text.startswith(held):
                return Prompt(said, text, self._tokens + self._session.encode_more(text[len(held) :]))
        return Prompt(said, text, self._session.encode_chat(messages))

    def answered(self, prompt: Prompt, outcome: Outcome) -> None:
        """Add two messages."""
        self._messages += [
            {"role": "user", "content": prompt.said},
            # where templates want a space between their own words and an answer, they write it
            {"role": "assistant", "content": outcome.text.removeprefix(" ")},
        ]
        self._taken(prompt, outcome)


class PlainConversation(Conversation):
    """One running text, for models that only continue text: what is said stands on a line of its own.

    A stop token is no part of the text, or the model would read that the text ended there.
    """

    @property
    def goes_on_by_itself(self) -> bool:
        """Once there is a text."""
        return bool(self._tokens)

    def after(self, said: str) -> Prompt:
        """The text so far and a line."""
        if not self._tokens:
            return Prompt(said, said, self._session.encode(said, raw=True))
        text = self._texts[-1]
        more = said if not said or text.endswith("\n") else f"\n{said}"
        return Prompt(said, text + more, self._tokens + (self._session.encode_more(more) if more else ()))

    def answered(self, prompt: Prompt, outcome: Outcome) -> None:
        """Append both."""
        self._taken(prompt, outcome)


def converse(session: Session, *, raw: bool) -> Conversation:
    """Through the chat template where there is one, unless ``raw``."""
    if session.has_chat_template and not raw:
        return TemplatedConversation(session)
    return PlainConversation(session)
