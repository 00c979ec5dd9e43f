"""What a person types into a chat: one line, several, or a block.

Lines are edited by the standard library's `readline`: editing and recalling are all that is needed, and it keeps what
was typed in memory only.
"""

import contextlib
import sys
from dataclasses import dataclass
from typing import Protocol

from cli import options
from cli.program import interrupts_at_once
from cli.render import ask
from skulk_core.errors import PromptError

QUOTES = '"""'
_PROMPT, _MORE = "> ", ". "


class LineReader(Protocol):
    """Gives one line after another, without its end. Raises `EOFError` after the last, `PromptError`."""

    def __call__(self, prompt: str) -> str:
        """The next line; ``prompt`` is shown where somebody sees it."""
        ...


def line_reader() -> LineReader:
    """Lines from a terminal, with editing, or from a pipe or file."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _from_pipe
    with contextlib.suppress(ImportError):
        # some builds of Python lack it: lines cannot be edited then
        import readline  # noqa: F401
    return _from_terminal


@dataclass(frozen=True)
class Typed:
    """What was typed; ``verbatim`` if no part of it is meant for us."""

    text: str
    verbatim: bool


def read_message(line: LineReader) -> Typed:
    r"""What is said next: a line; lines that end in a backslash and the one after them; a block between `\"\"\"`.

    Raises `EOFError` at the end of the input, `PromptError` for what is not text, and `KeyboardInterrupt` on Ctrl-C,
    also if that was pressed twice before.
    """
    with interrupts_at_once() as interrupts:
        if interrupts.presses > 1:
            raise KeyboardInterrupt
        interrupts.clear()
        return _message(line)


def _message(line: LineReader) -> Typed:
    first = line(_PROMPT)
    if first.lstrip().startswith(QUOTES):
        return Typed(_block(first.lstrip()[len(QUOTES) :], line), verbatim=True)
    lines = [first]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        try:
            lines.append(line(_MORE))
        except EOFError:
            # nothing comes after it: it is said as it is, and the next line ends the chat
            break
    return Typed("\n".join(lines), verbatim=False)


def _block(first: str, line: LineReader) -> str:
    """Lines up to one that ends in quotes; those that hold the quotes alone are not part of it."""
    lines = [first]
    while not lines[-1].rstrip().endswith(QUOTES):
        try:
            lines.append(line(_MORE))
        except EOFError:
            raise PromptError(f"the block that began with {QUOTES} was not closed, and was not said") from None
    lines[-1] = lines[-1].rstrip()[: -len(QUOTES)]
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    if len(lines) > 1 and not lines[0]:
        lines.pop(0)
    return "\n".join(lines)


def _from_terminal(prompt: str) -> str:
    try:
        typed = input(prompt)
    except UnicodeDecodeError as error:
        raise PromptError("what was typed is not text in the terminal's encoding") from error
    if not options.is_utf8(typed):
        raise PromptError("what was typed is not UTF-8 text")
    return typed


def _from_pipe(prompt: str) -> str:
    if sys.stdin.isatty():
        ask(prompt)
    try:
        raw = sys.stdin.buffer.readline()
    except OSError as error:
        raise PromptError(f"stdin cannot be read: {error.strerror or error}") from error
    if not raw:
        raise EOFError
    try:
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise PromptError(f"stdin is not UTF-8 text: byte 0x{raw[error.start]:02x} in a line") from error
