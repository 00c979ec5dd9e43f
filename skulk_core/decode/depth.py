"""How many tokens the next round drafts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from skulk_core.decode.stats import Round

# Draft positions whose acceptance nobody has seen are taken to be as good as the one before; the first as this.
_FIRST_GUESS = 0.7
# How many judged drafts such a guess weighs: little at the first position, where a dead head must be found out soon.
_FIRST_WEIGHT, _LATER_WEIGHT = 2.0, 6.0
# Where to begin: a guess is not worth deep drafts.
_FIRST_DEPTH = 2
# What was seen counts half after so many judged drafts: texts change their nature.
_HALF_LIFE = 64.0
# Another depth must promise so much more before it is taken, or two that are alike would alternate.
_HYSTERESIS = 1.03
# Plain rounds between two looks at what a draft would bring; twice as many after every look that was in vain.
_FIRST_LOOK, _LAST_LOOK = 32, 1024


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
    accepted of those judged, the older ones fading. Where plain decoding is best a draft of one token is tried now and
    then, ever more seldom, so a head that became useful is noticed and a dead one costs next to nothing.
    """

    def __init__(self, round_s: Sequence[float]) -> None:
        assert round_s, "no costs"
        self._round_s = tuple(round_s)
        self._judged = [0.0] * self.most
        self._accepted = [0.0] * self.most
        self._until_look = self._between_looks = _FIRST_LOOK
        self._depth = min(self._best(), _FIRST_DEPTH)

    @property
    def most(self) -> int:
        """The greatest depth whose cost is known."""
        return len(self._round_s) - 1

    def next_depth(self) -> int:
        """The depth chosen after the last round, or 1 where it is time for a look."""
        return 1 if self._depth == 0 and self._until_look <= 0 and self.most else self._depth

    def saw(self, round_: Round) -> None:
        """Learn from a round and choose again."""
        for position in range(min(round_.num_drafted, round_.num_accepted + 1)):
            fade = 0.5 ** (1 / _HALF_LIFE)
            self._judged[position] = self._judged[position] * fade + 1
            self._accepted[position] = self._accepted[position] * fade + (position < round_.num_accepted)
        looked = self._depth == 0 and round_.num_drafted > 0
        best = self._best()
        if best != self._depth and self._rate(best) > _HYSTERESIS * self._rate(self._depth):
            self._depth, self._until_look, self._between_looks = best, _FIRST_LOOK, _FIRST_LOOK
        elif looked and round_.num_accepted:
            # worth another look at once: one accepted draft does not outweigh many that were refused
            self._until_look = 0
        elif looked:
            self._between_looks = min(2 * self._between_looks, _LAST_LOOK)
            self._until_look = self._between_looks
        elif self._depth == 0:
            self._until_look -= 1

    def acceptance(self) -> list[float]:
        """The estimate for each position."""
        estimates, guess, weight = [], _FIRST_GUESS, _FIRST_WEIGHT
        for judged, accepted in zip(self._judged, self._accepted, strict=True):
            guess = (accepted + weight * guess) / (judged + weight)
            estimates.append(guess)
            weight = _LATER_WEIGHT
        return estimates

    def _rate(self, depth: int) -> float:
        """Expected tokens a second."""
        expected, reached = 1.0, 1.0
        for accepted in self.acceptance()[:depth]:
            reached *= accepted
            expected += reached
        return expected / self._round_s[depth]

    def _best(self) -> int:
        return max(range(len(self._round_s)), key=self._rate)
