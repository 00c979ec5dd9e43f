"""One loaded model and its texts: prompt in, pieces of text out."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from skulk_core.decode.certificate import Certificate
from skulk_core.decode.decoder import Progress
from skulk_core.decode.depth import DepthPolicy
from skulk_core.decode.engine import Engine, LocalEngine
from skulk_core.decode.prompt_bound import least_tokens
from skulk_core.decode.stats import Stats
from skulk_core.decode.text import TextStream
from skulk_core.errors import ContextError, PromptError, UnknownToken
from skulk_core.heads.base import DraftHead
from skulk_core.models.loading import FILES_AT_FAULT, LoadedModel
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness, FinishReason

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True)
class Request:
    """What to decode. ``max_tokens`` None: `DEFAULT_MAX_TOKENS`, or what the context leaves."""

    prompt: tuple[int, ...]
    depth: int | DepthPolicy
    max_tokens: int | None = None
    context_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: SamplingSettings = SamplingSettings()
    # whether what the prompt shares with the text before need not be read again
    go_on: bool = False
    exactness: Exactness = Exactness.ARGMAX
    # whether the text goes on where the prompt ends, in place of answering it: `TextStream`
    continues: bool = False

    def allowed_tokens(self) -> int:
        """New tokens this request may have. Raises `PromptError`, `ContextError`."""
        if not self.prompt:
            raise PromptError("the prompt is empty")
        if self.context_tokens is None:
            return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        left = self.context_tokens - len(self.prompt)
        if self.max_tokens is not None and self.max_tokens > left:
            raise ContextError(len(self.prompt), self.context_tokens, self.max_tokens)
        if left < 1:
            raise ContextError(len(self.prompt), self.context_tokens)
        return min(left, DEFAULT_MAX_TOKENS) if self.max_tokens is None else self.max_tokens


@dataclass
class Outcome:
    """What a text came to. Grows while it is decoded.

    ``tokens`` are those of the text: up to and with the one that completed a stop string, without a stop token. While
    it grows the last ones may not be in ``text`` yet: an incomplete character, a possible stop string. ``stop_token``
    is the one that the model ended the text by, None if it did not.
    """

    tokens: list[int] = field(default_factory=list)
    stop_token: int | None = None
    text: str = ""
    finish_reason: FinishReason = FinishReason.INTERRUPTED
    stats: Stats = field(default_factory=Stats)


class Session:
    """Decodes requests on one model, one at a time; ``engine`` does where the model is not in this process."""

    def __init__(self, model: LoadedModel, head: DraftHead | None, engine: Engine | None = None) -> None:
        self._model = model
        self._engine = engine or LocalEngine(model.target, model.tokenizer, head)

    def encode(self, prompt: str, *, raw: bool) -> tuple[int, ...]:
        """Prompt tokens: through the chat template where the tokenizer has one, unless ``raw``."""
        tokenizer: Any = self._model.tokenizer
        if tokenizer.has_chat_template and not raw:
            return self.encode_chat([{"role": "user", "content": prompt}])
        return tuple(tokenizer.encode(prompt))

    def refuse_what_cannot_fit(self, prompt: str, context_tokens: int | None) -> None:
        """Raise `ContextError` for a prompt so long that it need not be encoded to know; encoding it takes minutes."""
        least = least_tokens(self._model.tokenizer, prompt)
        if context_tokens is not None and least >= context_tokens:
            raise ContextError(least, context_tokens, at_least=True)

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer knows how a conversation is written."""
        return bool(self._model.tokenizer.has_chat_template)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Prompt tokens of a conversation (``role`` and ``content`` each) up to where the answer begins.

        Raises `PromptError` if the template refuses it.
        """
        return tuple(self._templated(messages, tokenize=True))

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What `encode_chat` encodes, as text. Raises as that does."""
        return str(self._templated(messages, tokenize=False))

    def encode_more(self, text: str) -> tuple[int, ...]:
        """Tokens of text in the middle of another: nothing is put before it."""
        return tuple(self._model.tokenizer.encode(text, add_special_tokens=False))

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text of an answer of ``tokens``, as `decode` puts it together."""
        stream = TextStream(self._model.tokenizer)
        stream.push(tokens)
        stream.finish()
        return stream.text

    def _templated(self, messages: Sequence[Mapping[str, str]], *, tokenize: bool) -> Any:
        tokenizer: Any = self._model.tokenizer
        try:
            return tokenizer.apply_chat_template(list(messages), tokenize=tokenize, add_generation_prompt=True)
        except (TemplateError, *FILES_AT_FAULT) as error:
            # a template is a program: its mistakes are those of any
            raise PromptError(f"the chat template cannot be applied ({error}); try --raw") from error

    def decode(
        self, request: Request, outcome: Outcome, progress: Progress | None = None
    ) -> Generator[str, None, None]:
        """A piece of text for every round, empty if none is complete; ``outcome`` is filled as they come.

        So whoever takes the pieces may stop after any of them, and has what came until then: all of it in ``outcome``
        once the iterator was closed. Raises `PromptError`, `ContextError`, `UnknownToken`.
        """
        max_tokens = request.allowed_tokens()
        self._refuse_unknown_tokens(request.prompt)
        stop_tokens = frozenset(self._model.tokenizer.eos_token_ids)
        stream = TextStream(self._model.tokenizer, request.stop, continues=request.continues)
        ended = False
        try:
            with self._engine.working():
                for tokens in self._tokens(request, max_tokens, stop_tokens, outcome, progress):
                    ended = tokens[-1] in stop_tokens
                    piece, num_taken = stream.push(tokens[:-1] if ended else tokens)
                    outcome.tokens += tokens[:num_taken]
                    if ended and not stream.stopped:
                        outcome.stop_token = tokens[-1]
                    outcome.text = stream.text
                    yield piece
                    if ended or stream.stopped:
                        break
        finally:
            piece = stream.finish()
            outcome.text = stream.text
        outcome.finish_reason = FinishReason.STOP if ended or stream.stopped else FinishReason.LENGTH
        yield piece

    def _refuse_unknown_tokens(self, prompt: Sequence[int]) -> None:
        """MLX would take the embedding of such a token from whatever lies behind the others in memory."""
        vocab_size = self._model.target.vocab_size
        unknown = next((token for token in prompt if not 0 <= token < vocab_size), None)
        if unknown is not None:
            raise UnknownToken(unknown, vocab_size)

    def certify(self, request: Request, outcome: Outcome, progress: Progress | None = None) -> Certificate:
        """Replay an answer by plain decoding, the token that ended it included; for requests at temperature 0."""
        most = request.depth if isinstance(request.depth, int) else request.depth.most
        answer = outcome.tokens if outcome.stop_token is None else [*outcome.tokens, outcome.stop_token]
        return self._engine.certify(request.prompt, answer, most, request.sampling, progress)

    def _tokens(
        self,
        request: Request,
        max_tokens: int,
        stop_tokens: frozenset[int],
        outcome: Outcome,
        progress: Progress | None,
    ) -> Iterator[Sequence[int]]:
        try:
            first = self._engine.prefill(
                request.prompt,
                request.depth,
                request.sampling,
                request.exactness,
                progress,
                go_on=request.go_on,
            )
        finally:
            # the engine counts every text anew
            outcome.stats = self._engine.stats
        yield [first]
        if first not in stop_tokens:
            for round_ in self._engine.rounds(max_tokens - 1, stop_tokens):
                yield round_.tokens
