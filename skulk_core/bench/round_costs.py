"""What whole rounds cost at each draft depth, by the loop that decodes: what `auto` decides from.

Unlike the parts of `costs.py`, which are waited for one by one, these rounds overlap as they do in a text.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skulk_core.decode.decoder import Decoder
from skulk_core.decode.exchange import Exchange
from skulk_core.decode.stats import Round
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Target
from skulk_core.sampling.base import Sampler

# Rounds timed at each depth, after one that is not: what the round before it left to the device falls into that one.
# Plain rounds are launched ahead of their turn, so only some of them together take their own time.
_TIMED, _TIMED_PLAIN = 1, 3


def measure_rounds(
    target: Target,
    head: DraftHead | None,
    prompt: Sequence[int],
    depths: Sequence[int],
    sampler: Sampler,
    turns: int,
    exchange: Exchange | None = None,
) -> tuple[float, ...]:
    """Seconds of a round at every depth from 0 to the greatest of ``depths``, in a text that begins with ``prompt``.

    Depths are measured in turn, ``turns`` times, and compared turn by turn, for a machine that is shared may run at
    half its speed for seconds: only their proportions are to be relied on. A depth never costs more than a deeper one;
    depths that are not measured lie on the line between those that are.
    """
    wanted = sorted({0, *depths})
    decoder = Decoder(target, head.always_drafts if head and wanted[-1] else None, sampler, exchange)
    policy = _Asked(wanted[-1])
    decoder.prefill(prompt, policy, sampler=sampler)
    # none is near the text's end, where rounds draft less
    rounds = decoder.rounds((turns + 1) * len(wanted) * (_TIMED_PLAIN + 3) * (wanted[-1] + 1))
    seconds: dict[int, list[float]] = {depth: [] for depth in wanted}
    for _ in range(turns):
        for depth in wanted:
            policy.depth = depth
            while next(rounds).num_drafted != depth:
                pass  # it was launched ahead, before it was asked for
            num_timed = _TIMED if depth else _TIMED_PLAIN
            began = time.perf_counter()
            for _ in range(num_timed):
                next(rounds)
            seconds[depth].append((time.perf_counter() - began) / num_timed)
    rounds.close()
    plain = np.array(seconds[0])
    plain_s = float(np.median(plain))
    return _on_lines(_least({depth: plain_s * float(np.median(seconds[depth] / plain)) for depth in wanted}))


@dataclass
class _Asked:
    """A policy that does as it is told."""

    most: int
    depth: int = 0

    def next_depth(self) -> int:
        """The depth wanted now."""
        return self.depth

    def saw(self, round_: Round) -> None:
        """Nothing is learnt."""


def _least(seconds: Mapping[int, float]) -> dict[int, float]:
    """No depth more than a deeper one."""
    least, bounded = float("inf"), {}
    for depth in sorted(seconds, reverse=True):
        least = min(least, seconds[depth])
        bounded[depth] = least
    return bounded


def _on_lines(seconds: Mapping[int, float]) -> tuple[float, ...]:
    """Every depth from 0 to the greatest that was measured."""
    known = sorted(seconds)
    return tuple(float(x) for x in np.interp(range(known[-1] + 1), known, [seconds[depth] for depth in known]))
