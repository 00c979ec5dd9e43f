"""What a benchmark decodes from: sets of prompts that come with the program, or lines of a file.

The sets are of several kinds, because acceptance depends on the kind of text; `mixed` has one prompt of each kind.
A context of a given length is made by putting a long text before the prompt, cut to fit.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from skulk_core.decode.session import Session
from skulk_core.errors import FileError, OptionError, PromptError
from skulk_core.formats.receipt_facts import PromptsRecord
from skulk_core.runtime.resources import prompts_folder

DEFAULT_SET, MIXED = "docs", "mixed"
KINDS = ("prose", "code", "chat", "list")
SETS = (DEFAULT_SET, *KINDS, MIXED)
_BETWEEN = "\n\n"
_TRIES = 6


@dataclass(frozen=True)
class PromptSet:
    """Prompts as text. ``name`` is a set's, or `file`."""

    name: str
    texts: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the texts, each with its length."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()


def named_set(name: str) -> PromptSet:
    """A set that comes with the program. Raises `FileError` if the installation lacks it."""
    sets = _shipped()
    if name == MIXED:
        return PromptSet(name, tuple(sets[kind][0] for kind in KINDS))
    return PromptSet(name, sets[name])


def read_prompts(text: str) -> PromptSet:
    """What `--prompts` says: a set's name, or a UTF-8 file with a prompt on each line. Raises `FileError`."""
    if text in SETS:
        return named_set(text)
    file = Path(text)
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        names = ", ".join(SETS)
        raise FileError(file, f"{error.strerror or error}; --prompts is a file, or one of {names}") from error
    except UnicodeDecodeError as error:
        raise FileError(file, "not UTF-8 text") from error
    if not lines:
        raise FileError(file, "holds no prompt")
    return PromptSet("file", tuple(lines))


def encode(
    session: Session, prompts: PromptSet, *, raw: bool, context: int | None
) -> tuple[tuple[tuple[int, ...], ...], PromptsRecord]:
    """Prompts as tokens, as `skulk run` would feed them, with what a receipt says of them.

    With ``context`` each has about that many tokens: exactly as many without a chat template. Raises `OptionError` if a
    prompt alone has more, `PromptError` if the template refuses.
    """
    templated = session.has_chat_template and not raw
    if context is None:
        fed = tuple(session.encode(text, raw=raw) for text in prompts.texts)
    elif templated:
        fed = tuple(_templated_after_context(session, text, context) for text in prompts.texts)
    else:
        fed = tuple(_after_context(session, text, context) for text in prompts.texts)
    for text, tokens in zip(prompts.texts, fed, strict=True):
        if not tokens:
            raise PromptError(f"a prompt without tokens: {text!r}")
    lengths = tuple(len(tokens) for tokens in fed)
    return fed, PromptsRecord(prompts.name, prompts.sha256, lengths, templated, context)


def _after_context(session: Session, text: str, context: int) -> tuple[int, ...]:
    """The long text's beginning and then ``text``: ``context`` tokens."""
    prompt = session.encode_more(_BETWEEN + text)
    _require_room(len(prompt), context)
    filler = session.encode(_long_text(context), raw=True)
    return (*filler[: context - len(prompt)], *prompt)


def _templated_after_context(session: Session, text: str, context: int) -> tuple[int, ...]:
    """The same as one message; where the template ends it, the number of tokens can be off by a few."""
    alone = session.encode(text, raw=False)
    _require_room(len(alone), context)
    filler = session.encode_more(_long_text(context))
    room = context - len(alone)
    for _ in range(_TRIES):
        fed = session.encode(session.text_of(filler[:room]) + _BETWEEN + text, raw=False)
        if len(fed) == context or room <= 0:
            break
        room += context - len(fed)
    return fed


def _require_room(num_tokens: int, context: int) -> None:
    if num_tokens >= context:
        raise OptionError("--context", context, f"a prompt alone has {num_tokens} tokens")


@cache
def _shipped() -> dict[str, tuple[str, ...]]:
    file = prompts_folder() / "sets.json"
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(file, f"missing from this installation, or damaged: {error}") from error
    return {name: tuple(texts) for name, texts in read.items()}


def _long_text(num_tokens: int) -> str:
    """Text of at least so many tokens; longer than the one that comes with the program, it says which time it is."""
    file = prompts_folder() / "long.txt"
    try:
        once = " ".join(file.read_text(encoding="utf-8").split("\n")).replace("  ", _BETWEEN)
    except OSError as error:
        raise FileError(file, f"missing from this installation: {error.strerror}") from error
    # no tokenizer makes more characters of a token than this of such text
    times = num_tokens * 8 // len(once) + 1
    parts: Sequence[str] = [f"Book {number + 1}. {once}" for number in range(times)]
    return _BETWEEN.join(parts)
