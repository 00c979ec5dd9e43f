"""Memory in pages of 2 MiB where Linux gives them only to those who ask.

A pass reads every weight once, and with pages of 4 KiB a CPU looks up a new address every 4 KiB and prefetches no
further. MLX's arrays on a CPU are made by `malloc`; glibc asks for large pages if a variable says so when a process
starts, and at no later time. So a program starts anew with it, before it has done anything: 20 milliseconds. Imports
nothing large.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

# "0": not wanted. "1": this process, or one that started it, asked for them.
CHOICE_VARIABLE = "SKULK_HUGE_PAGES"
_TUNABLES, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# The first glibc that knows the tunable.
_LEAST_GLIBC = (2, 35)


def restart() -> None:
    """Start this program anew, with the same arguments and process id, if it has to ask for large pages and did not.

    Everything that was done before is lost. Returns where there is nothing to ask for: another system, another mode
    than ``madvise``, a program that asks already, or `CHOICE_VARIABLE` set to anything.
    """
    if not _would_help() or CHOICE_VARIABLE in os.environ or not sys.executable:
        return
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], _asking(os.environ))
    except OSError:
        # slower, not worse
        return


def state() -> tuple[str, str | None]:
    """What this process's memory is made of, in words, and what would give it large pages; None where it has them."""
    mode = _mode()
    if mode == "always":
        return "2 MiB, given by the system", None
    if mode != "madvise":
        return "4 KiB", f"echo madvise | sudo tee {_MODES} (passes take a little less time)"
    if _TUNABLE in os.environ.get(_TUNABLES, ""):
        return "2 MiB, asked for", None
    return "4 KiB", f"unset {CHOICE_VARIABLE} (passes take a little less time)" if _would_help() else None


def _would_help() -> bool:
    return _mode() == "madvise" and _glibc() >= _LEAST_GLIBC and _TUNABLE not in os.environ.get(_TUNABLES, "")


def _asking(environment: Mapping[str, str]) -> dict[str, str]:
    tunables = [asked for asked in (environment.get(_TUNABLES), f"{_TUNABLE}=1") if asked]
    return {**environment, _TUNABLES: ":".join(tunables), CHOICE_VARIABLE: "1"}


def _mode() -> str | None:
    """Who gets large pages: ``always``, ``madvise`` or ``never``; None where nobody says."""
    try:
        found = re.search(r"\[(\w+)\]", _MODES.read_text())
    except OSError:
        return None
    return found.group(1) if found else None


def _glibc() -> tuple[int, ...]:
    """The version; empty for another C library."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", told)[:2])
