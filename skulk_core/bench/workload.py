"""What a benchmark is asked to measure."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skulk_core.decode.depth import DepthPolicy
from skulk_core.formats.receipt import AUTO, OURS
from skulk_core.formats.receipt_facts import PromptsRecord
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Target
from skulk_core.sampling.settings import MAX_SEED, SamplingSettings
from skulk_core.types import Exactness

Check = Callable[[], None]
# how another program is assisted: with a draft model, with prompt lookup, or in a way that cannot be had here
WITH_DRAFTS, WITH_LOOKUP, ASSISTED = "+ drafts", "+ lookup", "assisted"


@dataclass(frozen=True)
class Local:
    """What this host has loaded; ``head`` None if nothing drafts."""

    target: Target
    tokenizer: Any
    head: DraftHead | None


@dataclass(frozen=True)
class PeerText:
    """What another program decoded: tokens, seconds to the first ``num_first`` of them, and for the others."""

    tokens: tuple[int, ...]
    prefill_s: float
    decode_s: float
    num_first: int = 1


class Peer(abc.ABC):
    """Another program's decoding, on the same weights."""

    @abc.abstractmethod
    def decode(self, prompt: Sequence[int], num_tokens: int, settings: SamplingSettings, check: Check) -> PeerText:
        """``num_tokens`` tokens after ``prompt``; ``check`` is called as often as the program lets us."""


@dataclass(frozen=True)
class Skipped:
    """An arm that cannot be measured here, and why."""

    reason: str


@dataclass(frozen=True)
class ArmSpec:
    """An arm to measure. ``make_policy`` makes what decides the depth of one text, for `auto`."""

    name: str
    program: str = OURS
    depth: int | None = None
    make_policy: Callable[[], DepthPolicy] | None = field(default=None, compare=False)
    peer: Peer | Skipped | None = field(default=None, compare=False)

    @staticmethod
    def fixed(depth: int) -> "ArmSpec":
        """Always ``depth`` drafts a round."""
        return ArmSpec(name_of(depth), depth=depth)

    @staticmethod
    def auto(make_policy: Callable[[], DepthPolicy]) -> "ArmSpec":
        """The depth chosen round by round."""
        return ArmSpec(AUTO, make_policy=make_policy)

    @staticmethod
    def other(program: str, how: str, peer: Peer | Skipped) -> "ArmSpec":
        """Another program's decoding, ``how`` it is assisted: plain if empty."""
        return ArmSpec(f"{program} {how}".rstrip(), program, peer=peer)


def name_of(depth: int) -> str:
    """The name of a fixed depth's arm."""
    return f"depth {depth}"


REFERENCE = name_of(0)


@dataclass(frozen=True)
class Workload:
    """What every arm of a case decodes: ``num_tokens`` after each prompt, ``num_turns`` times."""

    name: str
    prompts: tuple[tuple[int, ...], ...]
    described: PromptsRecord
    num_tokens: int
    num_turns: int
    settings: SamplingSettings
    exactness: Exactness = Exactness.ARGMAX

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest prompt and its answer."""
        return max(map(len, self.prompts)) + self.num_tokens

    def settings_of(self, turn: int, prompt: int) -> SamplingSettings:
        """Every text has a seed of its own, the same in every arm."""
        seed = self.settings.seed + turn * len(self.prompts) + prompt
        return replace(self.settings, seed=seed % (MAX_SEED + 1))
