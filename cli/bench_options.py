"""What `skulk bench` and `skulk tune` are asked for, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.cluster import Spread
from cli.depth import AUTO
from cli.loading import Choice
from skulk_core.errors import OptionError

if TYPE_CHECKING:
    from skulk_core.sampling.settings import SamplingSettings
    from skulk_core.types import Exactness

DEFAULT_SWEEP = "0,1,2,3,4,auto"
SUITE_SWEEP = "0,1,2,4,auto"
DEFAULT_SEED = 0
DEFAULT_TOKENS, DEFAULT_PROMPTS = 200, "docs"
_NO_STOP = "completions have their full length here, so that arms can be compared: nothing ends them"
_NO_PLAIN = "a benchmark of a head that is not there measures nothing; --draft-depth 0 measures plain decoding"
_NO_CHAT = "a benchmark decodes prompts one by one; for messages there is --prompts chat"


@dataclass(frozen=True)
class Depths:
    """Draft depths to measure, in rising order, and whether `auto` is measured too. 0 is always among them."""

    fixed: tuple[int, ...]
    auto: bool

    @property
    def drafts(self) -> bool:
        """Whether a head is needed."""
        return self.auto or any(self.fixed)

    @property
    def most(self) -> int:
        """What a head is loaded for; 0 loads none."""
        return max(max(self.fixed), int(self.auto))


@dataclass(frozen=True)
class Wish:
    """One benchmark as asked for. ``suite`` has prompts, temperatures, lengths and contexts of its own."""

    choice: Choice
    depths: Depths
    num_tokens: int
    num_turns: int
    prompts: str
    context: int | None
    settings: "SamplingSettings"
    exactness: "Exactness"
    raw: bool
    certify: bool
    suite: bool
    against: str | None
    against_draft: Path | None
    over: Spread | None = None


def read_depths(text: str) -> Depths:
    """``N,N,…`` with ``auto`` among them; empty for the default sweep. Raises `OptionError`."""
    parts = [part.strip() for part in (text or DEFAULT_SWEEP).split(",")]
    try:
        fixed = {int(part) for part in parts if part != AUTO}
    except ValueError:
        raise OptionError("--draft-depth", text, "not a list of whole numbers and auto, as 0,1,2,auto") from None
    if fixed and min(fixed) < 0:
        raise OptionError("--draft-depth", text, "a depth is at least 0")
    return Depths(tuple(sorted(fixed | {0})), AUTO in parts)


def refuse_options_of_run(stop: list[str] | None, *, chat: bool, allow_plain: bool) -> None:
    """Options of `run` that mean nothing to a benchmark. Raises `OptionError`: it says why."""
    if stop:
        raise OptionError("--stop", "", _NO_STOP)
    if chat:
        raise OptionError("--chat", "", _NO_CHAT)
    if allow_plain:
        raise OptionError("--allow-plain", "", _NO_PLAIN)


def refuse_with_compare(given: Mapping[str, object]) -> None:
    """Options of a measurement, None where they are not given. Raises `OptionError`."""
    for option, value in given.items():
        if value is not None:
            raise OptionError(option, "" if value is True else str(value), "of a benchmark; a comparison is printed")


def refuse_options_with_suite(tokens: int | None, prompts: str | None, context: int | None, temperature: float) -> None:
    """What the cases of a suite have of their own. Raises `OptionError`."""
    given = {"--tokens": tokens, "--prompts": prompts, "--context": context, "--temperature": temperature or None}
    for option, value in given.items():
        if value is not None:
            raise OptionError(option, value, "--suite has cases of its own; leave one of the two out")
