"""Settings and figures of a text as they travel between launcher and decider."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from skulk_core.decode.stats import Round
from skulk_core.sampling.settings import AcceptRule, SamplingSettings


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
