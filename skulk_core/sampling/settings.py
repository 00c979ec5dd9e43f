"""What a request may ask of sampling, checked once."""

import math
from dataclasses import dataclass
from enum import StrEnum

from skulk_core.errors import OptionError

MAX_SEED = 2**64 - 1
# Far beyond use, and near enough that no combination of settings leaves float32.
_MOST = 1_000_000
_WITHIN = f"must be from -{_MOST} to {_MOST}"


class AcceptRule(StrEnum):
    """How a sampled draft is judged: token by token, or as a block by its joint ratio."""

    TOKEN = "token"
    BLOCK = "block"


@dataclass(frozen=True)
class SamplingSettings:
    """One distribution for target and draft alike.

    Bias and then penalties change the logits, then `temperature` divides them, then the filters `top_k`, `top_p` and
    `min_p` follow in this order, as in transformers. The repetition penalty looks at prompt and answer, presence and
    frequency penalties at the answer, as in vLLM. A setting at its default does nothing. Temperature 0 takes the most
    likely token, to which filters do nothing. ``logit_bias`` are pairs (token id, added to its logit; -inf bans it).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    accept: AcceptRule = AcceptRule.BLOCK

    def __post_init__(self) -> None:
        """Raise `OptionError` for a value that means nothing."""
        warm = 1 / _MOST <= self.temperature <= _MOST
        reason = f"must be 0, or from {1 / _MOST:f} to {_MOST}"
        _need("--temperature", self.temperature, warm or self.temperature == 0, reason)
        _need("--top-p", self.top_p, 0 < self.top_p <= 1, "must be above 0 and at most 1")
        _need("--top-k", self.top_k, self.top_k >= 0, "must be 0 (off) or more")
        _need("--min-p", self.min_p, 0 <= self.min_p <= 1, "must be from 0 to 1")
        divides = 1 / _MOST <= self.repetition_penalty <= _MOST
        _need("--repetition-penalty", self.repetition_penalty, divides, f"must be from {1 / _MOST:f} to {_MOST}")
        _need("--presence-penalty", self.presence_penalty, abs(self.presence_penalty) <= _MOST, _WITHIN)
        _need("--frequency-penalty", self.frequency_penalty, abs(self.frequency_penalty) <= _MOST, _WITHIN)
        _need("--seed", self.seed, 0 <= self.seed <= MAX_SEED, f"must be from 0 to {MAX_SEED}")
        rules = ", ".join(AcceptRule)
        _need("--accept", self.accept, self.accept in list(AcceptRule), f"not one of {rules}")
        for token, bias in self.logit_bias:
            _need("--logit-bias", f"{token}={bias}", 0 <= token < 2**31, "not a token id")
            _need("--logit-bias", f"{token}={bias}", bias == -math.inf or abs(bias) <= _MOST, f"{_WITHIN}, or -inf")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    @property
    def counts_tokens(self) -> bool:
        """Whether the logits of a row depend on the tokens before it beyond what the model makes of them."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


def _need(option: str, value: object, holds: bool, reason: str) -> None:
    if not holds:
        raise OptionError(option, value, reason)
