"""Long prompts on every core of a CPU: MLX computes one stream on one thread, so the parts of a prompt get streams.

Consecutive parts of a text run through the layers as a wave, each part one layer behind the part before it: layer
``l`` of a part needs nothing but what that layer remembers of the parts before. On a GPU a prompt is one part.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import mlx.core as mx

from skulk_core.runtime import blas

# Fewer rows than this to a part cost more in operations than they gain.
_LEAST_ROWS = 64
_MOST_STREAMS = 8


@dataclass
class _State:
    """Whether this process computes the parts of a prompt one after another; the one mutable thing here."""

    in_order: bool = False


_state = _State()


def compute_in_order() -> None:
    """From now on a prompt is one part: where hosts add their shares of a layer up, all must do so in one order."""
    _state.in_order = True
    _streams.cache_clear()


@cache
def _streams() -> tuple[mx.Stream, ...]:
    """One stream for each core this process may use; empty where one stream already uses the whole device."""
    if _state.in_order:
        return ()
    if mx.default_device() != mx.cpu or (blas.prepare().threads or 1) > 1:
        # a BLAS with threads of its own: the model is large and its products already use the cores
        return ()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tuple(mx.new_stream(mx.cpu) for _ in range(min(allowed, _MOST_STREAMS))) if allowed > 1 else ()


def parts_of(num_rows: int) -> list[tuple[int, int]]:
    """Half-open ranges, as equal as they can be, in which ``num_rows`` consecutive rows should run."""
    num_parts = max(1, min(len(_streams()), num_rows // _LEAST_ROWS))
    edges = [num_rows * part // num_parts for part in range(num_parts + 1)]
    return list(zip(edges, edges[1:], strict=False))


def wave(num_parts: int, num_layers: int, run: Callable[[int, int], None]) -> None:
    """Call ``run(part, layer)`` for every part and layer, each after the layer before it and the part before it.

    Parts that may run at the same time are built in turn, each on its own stream; there are no more than streams.
    """
    streams = _streams()
    for step in range(num_layers + num_parts - 1):
        for part in range(max(0, step - num_layers + 1), min(num_parts, step + 1)):
            if num_parts == 1:
                run(part, step - part)
            else:
                with mx.stream(streams[part]):
                    run(part, step - part)
