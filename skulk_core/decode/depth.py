"""How many tokens the next round drafts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from skulk_core.decode.stats import Round

# Draft positions whose acceptance nobody has seen are taken to be as good as the one before; the first as this, if the
# head is of any use.
_FIRST_GUESS = 0.7
# How many judged drafts such a guess weighs.
_FIRST_WEIGHT, _LATER_WEIGHT = 8.0, 9.0
# Some heads are of none (a foreign one, a wrong wiring): how likely that is beforehand, and what such a head has
# accepted. A few drafts refused from the start on make it likely, and one that is accepted soon all but rules it out;
# without this guess a good head would be given up whenever it is unlucky, or a dead one kept for long.
_DEAD_SHARE, _DEAD_ACCEPTS = 0.05, 0.05
# Where to begin: a guess is not worth deep drafts.
_FIRST_DEPTH = 2
# What was seen counts half after so many judged drafts: texts change their nature.
_HALF_LIFE = 64.0
_FADE = 0.5 ** (1 / _HALF_LIFE)
# Another depth must promise so much more before it is taken, or two that are alike would alternate.
_HYSTERESIS = 1.03
# Plain rounds between two looks at what a draft would bring; twice as many after every look that was in vain.
_FIRST_LOOK, _LAST_LOOK = 32, 256


class DepthPolicy(Protocol):
    """Asked before every round, told of every round."""

    @property
    def most(self) -> int:
        """The greatest depth it may ever ask for; 0 where no head is needed."""
        ...

    def next_depth(self) -> int:
        """Tokens to draft in the next round. Asking changes nothing."""
        ...

    def saw(self, round_: Round) -> None:
        """A round ended."""
        ...


@dataclass(frozen=True)
class FixedDepth:
    """Always the same."""

    most: int

    def next_depth(self) -> int:
        """The depth."""
        return self.most

    def saw(self, round_: Round) -> None:
        """Nothing is learnt."""


class AutoDepth:
    """The depth with the most expected tokens a second, from measured costs and a running estimate of acceptance.

    ``round_s[d]`` are seconds of a round at depth ``d`` from 0 on, measured in isolation. A round at depth ``d`` is
    expected to emit ``1 + a_1 + a_1 a_2 + …`` tokens with ``a_i`` the acceptance at position ``i``, each the share
    accepted of those judged, the older ones fading. What was seen at positions that are no longer drafted fades too,
    until they are taken to be as good as the one before them and are tried again. Where plain decoding is best a draft
    of one token is tried now and then, ever more seldom, so a head that became useful is noticed and a dead one costs
    next to nothing.
    """

    def __init__(self, round_s: Sequence[float]) -> None:
        assert round_s, "no costs"
        self._round_s = tuple(round_s)
        self._judged = [0.0] * self.most
        self._accepted = [0.0] * self.most
        self._until_look = self._between_looks = _FIRST_LOOK
        rates = self._rates()
        self._depth = min(rates.index(max(rates)), _FIRST_DEPTH)

    @property
    def most(self) -> int:
        """The greatest depth whose cost is known."""
        return len(self._round_s) - 1

    def next_depth(self) -> int:
        """The depth chosen after the last round, or 1 where it is time for a look."""
        return 1 if self._depth == 0 and self._until_look <= 0 and self.most else self._depth

    def saw(self, round_: Round) -> None:
        """Learn from a round and choose again."""
        if not round_.num_drafted:
            # nothing to learn, and a plain round of a small model is short
            self._until_look -= 1
            return
        for position in range(min(round_.num_drafted, round_.num_accepted + 1)):
            self._judged[position] = self._judged[position] * _FADE + 1
            self._accepted[position] = self._accepted[position] * _FADE + (position < round_.num_accepted)
        for position in range(round_.num_drafted, self.most):
            self._judged[position] *= _FADE
            self._accepted[position] *= _FADE
        rates = self._rates()
        best = rates.index(max(rates))
        if best != self._depth and rates[best] > _HYSTERESIS * rates[self._depth]:
            self._depth, self._until_look, self._between_looks = best, _FIRST_LOOK, _FIRST_LOOK
        elif self._depth == 0 and round_.num_accepted:
            # worth another look at once: one accepted draft does not outweigh many that were refused
            self._until_look = 0
        elif self._depth == 0:
            self._between_looks = min(2 * self._between_looks, _LAST_LOOK)
            self._until_look = self._between_looks

    def acceptance(self) -> list[float]:
        """The estimate for each position."""
        estimates: list[float] = []
        guess, weight = _FIRST_GUESS, _FIRST_WEIGHT
        for judged, accepted in zip(self._judged, self._accepted, strict=True):
            guess = (accepted + weight * guess) / (judged + weight)
            if not estimates:
                dead = _chance_that_dead(judged, accepted)
                guess = dead * _DEAD_ACCEPTS + (1 - dead) * guess
            estimates.append(guess)
            weight = _LATER_WEIGHT
        return estimates

    def _rates(self) -> list[float]:
        """Expected tokens a second at each depth."""
        expected = reached = 1.0
        rates = [expected / self._round_s[0]]
        for accepted, seconds in zip(self.acceptance(), self._round_s[1:], strict=True):
            reached *= accepted
            expected += reached
            rates.append(expected / seconds)
        return rates


def _chance_that_dead(judged: float, accepted: float) -> float:
    """That a head with so many first drafts accepted of those judged is of no use, by Bayes' rule.

    The acceptance of one that is of use is beforehand distributed as a beta of mean `_FIRST_GUESS`.
    """
    refused = judged - accepted
    hits, misses = _FIRST_WEIGHT * _FIRST_GUESS, _FIRST_WEIGHT * (1 - _FIRST_GUESS)
    live = math.log(1 - _DEAD_SHARE) + _log_beta(hits + accepted, misses + refused) - _log_beta(hits, misses)
    dead = math.log(_DEAD_SHARE) + accepted * math.log(_DEAD_ACCEPTS) + refused * math.log(1 - _DEAD_ACCEPTS)
    return 1 / (1 + math.exp(min(live - dead, 700.0)))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
