"""Why MLX computes with the slow reference BLAS, and what to do about it, in words."""

import os

from skulk_core.runtime.blas import CHOICE_VARIABLE, REFERENCE, BlasChoice, Skipped
from skulk_core.runtime.packages import cpu_command, system_command


def slow_without_being_asked(choice: BlasChoice) -> bool:
    """Whether ``choice`` is the reference BLAS although nobody asked for it."""
    return choice.name == REFERENCE and os.environ.get(CHOICE_VARIABLE) != "none"


def remedy(choice: BlasChoice) -> str:
    """What gives MLX a fast BLAS, with what was wrong with each that was tried; first those that are installed."""
    if CHOICE_VARIABLE in os.environ:
        return "; ".join([f"unset {CHOICE_VARIABLE}", *map(_tried, choice.skipped)])
    broken = [skipped for skipped in choice.skipped if skipped.is_installed]
    absent = [skipped for skipped in choice.skipped if not skipped.is_installed]
    # one that is there and fails is not mended by installing it again
    commands = " or ".join(filter(None, ("" if broken else cpu_command(), system_command("blis"))))
    return "; ".join(filter(None, [*map(_tried, broken), commands, *map(_tried, absent)]))


def _tried(skipped: Skipped) -> str:
    return f"{skipped.name}: {skipped.reason}" + (f" ({skipped.remedy})" if skipped.remedy else "")
