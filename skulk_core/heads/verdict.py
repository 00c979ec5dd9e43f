"""From what was right row by row to conventions: the statistics of a probe.

Two statistics decide, each the mean of a difference over rows divided by its standard error, so that easy and hard rows
cancel:

- against chance, which is to name the most frequent token of these texts always: the best candidate's first drafts must
  be ahead by `SURE_OF_HEAD`. By luck one of 16 candidates of a head that knows nothing is in fewer than one of a
  thousand probes.
- against one another, by the drafts out of two that would have been accepted: candidates that the best is not ahead of
  by `SURE_OF_WIRING` are *alike*, and of those the one is picked that differs in fewest conventions from a reference.

Where those alike have other positions, whole texts decide between them, `SURE_OF_TEXTS` standard errors of a mean over
texts: rows of a text that repeats itself are no observations of their own, and texts are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skulk_core.errors import HeadDoesNotFit
from skulk_core.types import Conventions

# Standard errors.
SURE_OF_HEAD = 4.0
SURE_OF_WIRING = 2.5
SURE_OF_TEXTS = 3.0

Hits = npt.NDArray[np.bool_]
Tokens = npt.NDArray[np.int32]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """Conventions and what was measured: the share of first drafts that were right, and of second ones after those.

    ``second`` is None where the first drafts were already clearly worse than another's.
    """

    conventions: Conventions
    first: float
    second: float | None


@dataclass(frozen=True)
class Probe:
    """What a probe found. ``candidates`` have the best first; ``chance`` is the share of the most frequent token.

    ``picked`` is None where no candidate is clearly better than chance; ``alike`` are those, with ``picked``, that
    could not be told from the best. ``num_texts`` are the whole texts that were asked besides.
    """

    candidates: tuple[Candidate, ...]
    picked: Candidate | None
    alike: tuple[Candidate, ...]
    num_tokens: int
    chance: float
    num_texts: int = 0

    def require(self, head: Path) -> Candidate:
        """``picked``. Raises `HeadDoesNotFit` if there is none, naming the ``head``."""
        if self.picked is None:
            best = max(candidate.first for candidate in self.candidates)
            raise HeadDoesNotFit(head, best, self.chance, self.num_tokens)
        return self.picked


@dataclass(frozen=True)
class Measured:
    """Row by row: whether the first draft was right, and whether the second was too (None: not measured)."""

    conventions: Conventions
    first: Hits
    both: Hits | None = None

    @property
    def accepted(self) -> npt.NDArray[np.float64]:
        """Drafts out of two that would have been accepted; of those measured."""
        return self.first.astype(np.float64) if self.both is None else self.first.astype(np.float64) + self.both

    def summary(self) -> Candidate:
        """The shares."""
        second = None if self.both is None else float(self.both.sum() / max(self.first.sum(), 1))
        return Candidate(self.conventions, float(self.first.mean()), second)


def contenders(measured: Sequence[Measured], came: Tokens) -> list[Measured]:
    """Those whose first drafts are not clearly worse than the best ones; none if those are no better than chance.

    First drafts were compared with the tokens that ``came`` ``[n]``.
    """
    best = max(measured, key=lambda one: one.first.sum())
    if lead(best.first, _by_chance(came)) < SURE_OF_HEAD:
        return []
    return [one for one in measured if lead(best.first, one.first) < SURE_OF_WIRING]


def decide(measured: Sequence[Measured], came: Tokens, reference: Conventions) -> Probe:
    """The verdict, once the second drafts of all `contenders` were measured."""
    ranked = sorted(measured, key=lambda one: (one.both is not None, one.accepted.sum()), reverse=True)
    both = [one for one in ranked if one.both is not None]
    alike = [one for one in both if lead(both[0].accepted, one.accepted) < SURE_OF_WIRING]
    picked = min(alike, key=lambda one: _differences(one.conventions, reference), default=None)
    return Probe(
        candidates=tuple(one.summary() for one in ranked),
        picked=None if picked is None else picked.summary(),
        alike=tuple(one.summary() for one in alike),
        num_tokens=len(came),
        chance=float(_by_chance(came).mean()),
    )


def told_by_texts(found: Probe, accepted: Mapping[Conventions, Shares], reference: Conventions) -> Probe:
    """``found`` without those of `alike` that are behind over whole texts, ``accepted`` drafts of each, ``[n]``."""
    best = max(accepted.values(), key=lambda shares: float(shares.mean()))
    alike = [one for one in found.alike if lead(best, accepted[one.conventions]) < SURE_OF_TEXTS]
    picked = min(alike, key=lambda one: _differences(one.conventions, reference))
    return replace(found, picked=picked, alike=tuple(alike), num_texts=len(best))


def _by_chance(came: Tokens) -> Hits:
    """Which tokens are the most frequent one."""
    values, counts = np.unique(came, return_counts=True)
    most_frequent: Hits = came == values[counts.argmax()]
    return most_frequent


def lead(ahead: npt.NDArray[np.generic], behind: npt.NDArray[np.generic]) -> float:
    """By how many standard errors the mean of ``ahead`` ``[n]`` is above that of ``behind``, row against row."""
    difference = ahead.astype(np.float64) - behind.astype(np.float64)
    mean, error = float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))
    if error == 0.0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / error


def _differences(one: Conventions, other: Conventions) -> int:
    return sum(a != b for a, b in zip(astuple(one), astuple(other), strict=True))
