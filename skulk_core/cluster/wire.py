"""Settings and figures of a text as they travel between launcher and decider."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skulk_core.decode.depth import DepthPolicy
from skulk_core.decode.stats import Round
from skulk_core.sampling.settings import AcceptRule, SamplingSettings

AUTO = "auto"


@dataclass(frozen=True)
class AutoAtDecider:
    """`auto`: the decider measures its rounds over the ring and chooses there."""

    most: int

    def next_depth(self) -> int:
        """Nobody's business here."""
        raise AssertionError("chosen at the decider")

    def saw(self, round_: Round) -> None:
        """Seen at the decider."""


def depth_frame(depth: int | DepthPolicy) -> int | str:
    """As JSON: a number, or `AUTO`."""
    if isinstance(depth, AutoAtDecider):
        return AUTO
    return depth if isinstance(depth, int) else depth.most


def sampling_frame(settings: SamplingSettings) -> dict[str, Any]:
    """As JSON."""
    # -inf, which bans a token, is no JSON number
    return {**asdict(settings), "logit_bias": [[token, str(bias)] for token, bias in settings.logit_bias]}


def read_sampling(frame: Mapping[str, Any]) -> SamplingSettings:
    """What `sampling_frame` wrote."""
    biases = tuple((int(token), float(bias)) for token, bias in frame["logit_bias"])
    return SamplingSettings(**{**frame, "logit_bias": biases, "accept": AcceptRule(frame["accept"])})


def read_round(frame: Mapping[str, Any]) -> Round:
    """A round the decider told of."""
    return Round(tuple(frame["tokens"]), frame["drafted"], frame["accepted"])
