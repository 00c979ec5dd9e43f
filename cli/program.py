"""What holds from a program's first moment to its last: its standard streams, and what Ctrl-C does.

Imports nothing large: until this has begun, Ctrl-C ends in a traceback.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
_EXIT_BY_SIGNAL = 128

_ECHO_S = 1.0
# In a chat a second Ctrl-C means something of its own, and only what no finger can do is taken for an echo.
_CHAT_ECHO_S = 0.15
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


def run_program(make_app: Callable[[], Callable[[], object]]) -> None:
    """Make a Typer app and run it; ``make_app`` does the imports."""
    _interrupt_but_not_by_echoes()
    _open_closed_streams()
    # what cannot be encoded on this terminal must not end a run
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        make_app()()
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        # commands write through `render`, which says this better; help and usage are written by Typer
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        abandon(sys.stdout)
        print(f"error: stdout cannot be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None
    finally:
        # what is left is Python's own ending, which answers Ctrl-C with a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Interrupts:
    """Whether Ctrl-C was pressed, and how often; `check` raises `KeyboardInterrupt` if it was."""

    def __init__(self) -> None:
        self.pending, self.presses = False, 0
        self.signal: signal.Signals = signal.SIGINT
        self._last_s = -_ECHO_S

    @property
    def exit_code(self) -> int:
        """As a shell has it for the signal that came."""
        return _EXIT_BY_SIGNAL + self.signal

    def check(self) -> None:
        if self.pending:
            raise KeyboardInterrupt

    def press(self, echo_s: float) -> bool:
        """Note a Ctrl-C; False for one that came within ``echo_s`` of another, which is an echo of that."""
        self.pending = True
        before_s, self._last_s = self._last_s, time.monotonic()
        counts = self._last_s - before_s >= echo_s
        self.presses += counts
        return counts

    def clear(self) -> None:
        """What was pressed has been answered."""
        self.pending, self.presses = False, 0


# Of this process. Checked also where Ctrl-C raises by itself: what we import may swallow it.
INTERRUPTS = Interrupts()


@contextmanager
def interrupts_at_checks(*others: signal.Signals) -> Iterator[Interrupts]:
    """In the block Ctrl-C, once or often, does nothing but what `Interrupts.check` does, where that is called.

    Raised anywhere else, it would leave caches that were fed half a pass. ``others`` are signals that do the same;
    one that whoever started us has ignored, as `nohup` does, stays ignored.
    """

    def note(number: int, _: object) -> None:
        INTERRUPTS.signal = signal.Signals(number)
        INTERRUPTS.press(_CHAT_ECHO_S)

    wanted = [signal.SIGINT, *(other for other in others if signal.getsignal(other) != signal.SIG_IGN)]
    before = {number: signal.signal(number, note) for number in wanted}
    try:
        yield INTERRUPTS
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_at_once() -> Iterator[Interrupts]:
    """In the block, which waits for a person, Ctrl-C raises `KeyboardInterrupt`, unless it echoes one before."""

    def interrupt(*_: object) -> None:
        if INTERRUPTS.press(_CHAT_ECHO_S):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield INTERRUPTS
    finally:
        signal.signal(signal.SIGINT, before)


def abandon(stream: TextIO) -> None:
    """Let what Python still holds for a stream go nowhere, or its own ending complains that it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt_but_not_by_echoes() -> None:
    """Make Ctrl-C raise `KeyboardInterrupt`, once for what comes close together.

    Launchers pass it on to a process whose terminal has told it already, and people press it twice.
    """

    def interrupt(*_: object) -> None:
        if INTERRUPTS.press(_ECHO_S):
            raise KeyboardInterrupt

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        # raised where Python can only report it; it is pending, and whoever checks raises it again
        if unraisable.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(unraisable)

    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = report


def _open_closed_streams() -> None:
    """Open streams that were closed by whoever started us: Python has None for them, and files would take their place.

    stdin becomes empty, stderr silent; stdout becomes one that cannot be written, so that a lost answer is an error.
    """
    modes = {"stdin": (os.O_RDONLY, "r"), "stdout": (os.O_RDONLY, "w"), "stderr": (os.O_WRONLY, "w")}
    for descriptor, (name, (flags, mode)) in enumerate(modes.items()):
        if getattr(sys, name) is None:
            # the lowest free descriptor is taken, and those below are open
            assert os.open(os.devnull, flags) == descriptor
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
