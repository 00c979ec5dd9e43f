"""What a person sees: the answer, data and tables on stdout; progress, messages and the line of figures on stderr."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli.program import abandon
from skulk_core.errors import OutputError

# First drafts of which a head that is right one time in three has none accepted once in 600 texts; and fewer, once in
# 25, where the depth is chosen: little more is drafted with a head that is never right.
_SUSPECT, _SUSPECT_AUTO = 16, 8
# Columns of a table in a file or a pipe, where nothing has to be folded.
_WIDE = 200

if TYPE_CHECKING:
    from skulk_core.decode.certificate import Certificate
    from skulk_core.decode.stats import Stats


class _Stderr(Console):
    def on_broken_pipe(self) -> None:
        """Rich would give up stdout here; that nobody reads our messages is no reason to lose the answer."""
        abandon(sys.stderr)


_stderr = _Stderr(stderr=True, highlight=False)


def out(text: str) -> None:
    """Write to stdout, at once. Raises `OutputError`, or `BrokenPipeError` if the reader has gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error


def out_answer(text: str) -> None:
    """Text of a model: as it is into a pipe or file, without control characters onto a terminal."""
    if sys.stdout.isatty():
        text = "".join(part if part in "\n\t" else visible(part) for part in text)
    out(text)


def show(table: RenderableType) -> None:
    """Something of rich's on stdout, as wide as it likes where no terminal is. Raises as `out` does."""
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE)
    with console.capture() as captured:
        # a terminal that is narrower than the table breaks its lines; cut off, a figure would be another one
        console.print(table, crop=False)
    out(captured.get())


def ask(prompt: str) -> None:
    """A prompt on stderr, for a person whose stdout is elsewhere."""
    _say(Text(prompt), end="")


def say(message: str) -> None:
    """One line on stderr."""
    _say(Text(visible(message)))


def say_error(message: str, tip: str, table: Sequence[Sequence[str]] = ()) -> None:
    """An error, rows of a ``table`` that tell more of it (heads first, names in the first column), what to do next."""
    _say(Text.assemble(("error:", "bold red"), f" {visible(message)}"))
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    for first, *rest in table:
        cells = [first + " " * (widths[0] - cell_len(first)), *map(str.rjust, rest, widths[1:])]
        _say(Text(f"  {visible('  '.join(cells))}".rstrip()))
    if tip:
        _say(Text(f"  {visible(tip)}"))


def visible(text: str) -> str:
    """``text`` with every character that could move a cursor, change colours or hide others written as an escape."""

    def shown(character: str) -> str:
        return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")

    return "".join(map(shown, text))


def _say(text: Text, end: str = "\n") -> None:
    try:
        _stderr.print(text, soft_wrap=True, end=end)
    except OSError:
        # a full disk: no reason to lose the answer either
        abandon(sys.stderr)


class _Beside(Progress):
    """Progress with something below it, asked for anew whenever it is drawn."""

    beside: Callable[[], RenderableType] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.beside is not None:
            yield self.beside()


class Reporter:
    """Progress of one command: downloads, loading, long prompts. Silent where stderr is no terminal, or if told so."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._quiet, self._verbose = quiet, verbose
        # asked of the stream itself: rich takes FORCE_COLOR for a terminal
        self._shown = sys.stderr.isatty() and not _stderr.is_dumb_terminal and not quiet
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        # what is shown below the progress
        self.beside: Callable[[], RenderableType] | None = None

    def detail(self, message: str) -> None:
        """A line that only --verbose shows."""
        if self._verbose:
            say(message)

    def note(self, message: str) -> None:
        """A line that --quiet hides."""
        if not self._quiet:
            say(message)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show progress until the block ends, then leave no trace of it."""
        if not self._shown:
            yield
            return
        what, amount = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[amount]}", markup=False)
        columns = (SpinnerColumn(), what, BarColumn(), amount, TimeRemainingColumn())
        with _Beside(*columns, console=_stderr, transient=True) as self._progress:
            self._progress.beside = lambda: self.beside() if self.beside is not None else Text("")
            try:
                yield
            finally:
                self._progress, self._tasks = None, {}

    def bytes(self, description: str, num_bytes_done: int, num_bytes_total: int | None) -> None:
        """Progress of a download."""
        total = "" if num_bytes_total is None else f"/{_megabytes(num_bytes_total)}"
        self._advance(description, num_bytes_done, num_bytes_total, f"{_megabytes(num_bytes_done)}{total} MB")

    def tokens(self, done: int, total: int) -> None:
        """Progress of a prompt."""
        self._advance("reading the prompt", done, total, f"{done}/{total} tokens")

    def replayed(self, done: int, total: int) -> None:
        """Progress of a certificate."""
        self._advance("comparing with plain decoding", done, total, f"{done}/{total} tokens")

    def turns(self, done: int, total: int) -> None:
        """Progress of a benchmark."""
        self._advance("measuring", done, total, f"{done}/{total} texts")

    def step(self, description: str) -> None:
        """Something that cannot say how far it is."""
        self._advance(description, 0, None, "")

    def _advance(self, description: str, done: int, total: int | None, amount: str) -> None:
        if self._progress is None:
            return
        if description not in self._tasks:
            self._tasks[description] = self._progress.add_task(visible(description), total=total, amount=amount)
        for name, task in self._tasks.items():
            self._progress.update(task, visible=name == description)
        self._progress.update(self._tasks[description], completed=done, total=total, amount=amount)


def figures(stats: "Stats", num_tokens: int, plain_because: str | None) -> str:
    """The line after an answer, of what is known: after one token nothing is of rounds."""
    parts = [f"{num_tokens} {'token' if num_tokens == 1 else 'tokens'}"]
    if stats.tokens:
        parts += [f"{stats.decode_tokens_per_s:.1f} tok/s"]
    if plain_because is None and stats.draft_depth:
        if stats.rounds:
            parts += [f"{stats.tokens_per_round:.2f} tokens a round"]
        if accepted := " ".join(f"{share:.0%}" for share in stats.acceptance):
            parts += [f"accepted by position {accepted}"]
        drafted = f", {stats.drafted / stats.rounds:.1f} drafted a round" if stats.rounds else ""
        parts += [f"depth auto{drafted}" if stats.chose_depth else f"depth {stats.draft_depth}"]
    else:
        parts += [f"depth 0: {plain_because or 'plain decoding was asked for'}"]
    return " · ".join(parts)


def dead_head_line(stats: "Stats", model: str) -> str | None:
    """What to look at if no draft was ever right; None if one was, or if that may be chance."""
    judged = sum(stats.judged_at[:1])
    if judged < (_SUSPECT_AUTO if stats.chose_depth else _SUSPECT) or stats.accepted:
        return None
    return (
        f"none of {judged} first drafts was right: the head may be dead, or of another model; "
        f"`skulk doctor {model} --sidecar S` measures it"
    )


def certificate_line(certificate: "Certificate") -> str:
    """What the comparison with plain decoding found."""
    found, bound = certificate.divergences, f"bound {certificate.bound:.2g}"
    if not found:
        gap = "" if certificate.smallest_gap is None else f", smallest gap {certificate.smallest_gap:.2g}"
        return f"certificate: all {certificate.compared} tokens are those of plain decoding ({bound}{gap})"
    listed = ", ".join(
        f"token {one.position}: {one.emitted} for {one.plain}, behind by {one.gap:.2g}" for one in found[:5]
    )
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    verdict = "within rounding" if certificate.holds else "NOT explained by rounding"
    return f"certificate: {len(found)} of {certificate.compared} tokens differ, {verdict} ({bound}): {listed}{more}"


def size(nbytes: int) -> str:
    """An amount of memory."""
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.1f} MB"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f}"
