"""Memory in pages of 2 MiB where Linux gives them only to those who ask.

A pass reads every weight once, and with pages of 4 KiB a CPU looks up a new address every 4 KiB and prefetches no
further. MLX's arrays on a CPU are made by `malloc`; glibc asks for large pages if a variable says so when a process
starts, and at no later time. So a program starts anew with it, before it has done anything: 40 milliseconds of `skulk`.
Imports nothing large.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

# "0" where large pages are not wanted.
CHOICE_VARIABLE = "SKULK_HUGE_PAGES"
# From a program to itself, started anew: what the other variable was before.
_BEFORE_VARIABLE = "SKULK_GLIBC_TUNABLES_BEFORE"
_TUNABLES, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# The first glibc that knows the tunable.
_LEAST_GLIBC = (2, 35)


@dataclass
class _State:
    """Whether this process was started anew with large pages; the one mutable thing here."""

    asked: bool = False


_state = _State()


def restart() -> None:
    """Start this program anew, with the same arguments and process id, if it has to ask for large pages and did not.

    The whole process is replaced: to be called by programs, first of all. Returns where there is nothing to ask for
    (another system, a kernel in another mode than ``madvise``, a program that asks by itself, `CHOICE_VARIABLE`) and in
    a program that was started anew, whose environment is as it was.
    """
    before = os.environ.pop(_BEFORE_VARIABLE, None)
    if before is not None:
        _state.asked = _tunable() == "1"
        os.environ.pop(_TUNABLES, None)
        if before:
            os.environ[_TUNABLES] = before
    elif _can_ask() and _mode() == "madvise" and _tunable() is None and _is_wanted() and _is_a_program():
        before = os.environ.get(_TUNABLES, "")
        asking = ":".join([*([before] if before else []), f"{_TUNABLE}=1"])
        environment = {**os.environ, _TUNABLES: asking, _BEFORE_VARIABLE: before}
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
        except OSError:
            # slower, not worse
            return


def state() -> tuple[str, str | None]:
    """What this process's memory is made of, in words, and a command that would give it large pages, if one would."""
    mode = _mode()
    if mode == "always":
        return "2 MiB, given by the system", None
    if mode == "madvise" and (_state.asked or _tunable() not in (None, "0")):
        return "2 MiB, asked for", None
    if not _can_ask() or mode is None:
        return "as the system gives them", None
    if mode != "madvise":
        return "4 KiB", f"echo madvise | sudo tee {_MODES} (passes take a little less time)"
    return "4 KiB", None if _is_wanted() else f"unset {CHOICE_VARIABLE} (passes take a little less time)"


def _is_wanted() -> bool:
    return os.environ.get(CHOICE_VARIABLE) != "0"


def _is_a_program() -> bool:
    """Whether this process can be started again by its arguments: not what is typed or piped into an interpreter."""
    named = len(sys.orig_argv) > 1 and sys.argv[0] not in ("", "-")
    return named and bool(sys.executable) and not getattr(sys, "frozen", False)


def _tunable() -> str | None:
    """What the environment says of large pages."""
    found = re.findall(rf"{re.escape(_TUNABLE)}=(\w+)", os.environ.get(_TUNABLES, ""))
    return found[-1] if found else None


def _mode() -> str | None:
    """Who gets large pages: ``always``, ``madvise`` or ``never``; None where nobody says."""
    try:
        found = re.search(r"\[(\w+)\]", _MODES.read_text())
    except OSError:
        return None
    return found.group(1) if found else None


def _can_ask() -> bool:
    """Whether the C library knows how."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return False
    return tuple(int(part) for part in re.findall(r"\d+", told)[:2]) >= _LEAST_GLIBC
