"""What holds from a program's first moment to its last: its standard streams, and what Ctrl-C does.

Imports nothing large: until this has begun, Ctrl-C ends in a traceback.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


def run_program(make_app: Callable[[], Callable[[], object]]) -> None:
    """Make a Typer app and run it; ``make_app`` does the imports."""
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
        abandon_stdout()
        print(f"error: stdout cannot be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from None
    finally:
        # what is left is Python's own ending, which answers Ctrl-C with a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Ctrl-C raises `KeyboardInterrupt` in the block once and is then ignored: launchers and people repeat it."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C changes nothing until the block, which must be short, has ended."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def abandon_stdout() -> None:
    """Let what Python still holds for stdout go nowhere, or its own ending complains that it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
