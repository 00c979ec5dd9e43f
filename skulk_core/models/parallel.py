"""Long passes on every core of a CPU: MLX computes one stream on one thread, so independent parts get streams.

Only prefill has rows enough for it. Everywhere else, and on a GPU, the functions here call straight through.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import mlx.core as mx

from skulk_core.runtime import blas

_T = TypeVar("_T")

# Fewer rows than this for each part cost more in hand-overs between streams than they gain.
_LEAST_ROWS = 64
_MOST_STREAMS = 8


@cache
def _streams() -> tuple[mx.Stream, ...]:
    """One stream for each core this process may use; empty where one stream already uses the whole device."""
    if mx.default_device() != mx.cpu or (blas.prepare().threads or 1) > 1:
        # a BLAS with threads of its own: the model is large and its products already use the cores
        return ()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tuple(mx.new_stream(mx.cpu) for _ in range(min(allowed, _MOST_STREAMS))) if allowed > 1 else ()


def num_parts(num_rows: int) -> int:
    """Parts worth making of ``num_rows`` rows: 1 for anything but a long pass on several cores."""
    return max(1, min(len(_streams()), num_rows // _LEAST_ROWS)) if num_rows >= 2 * _LEAST_ROWS else 1


def in_parallel(parts: Sequence[Callable[[], _T]]) -> list[_T]:
    """Results of ``parts``, each built on a stream of its own (in turn, where there are more parts than streams)."""
    streams = _streams()
    if len(parts) == 1 or not streams:
        return [part() for part in parts]
    results = []
    for index, part in enumerate(parts):
        with mx.stream(streams[index % len(streams)]):
            results.append(part())
    return results


def ranges(num_rows: int, parts: int) -> list[tuple[int, int]]:
    """``parts`` half-open ranges that make up ``[0, num_rows)``, as equal as they can be."""
    edges = [num_rows * part // parts for part in range(parts + 1)]
    return list(zip(edges, edges[1:], strict=False))


def by_rows(function: Callable[..., tuple[mx.array, ...]], *inputs: mx.array) -> tuple[mx.array, ...]:
    """``function(*inputs)``, arrays ``[T, …]`` in and out, where no row depends on another."""
    rows = inputs[0].shape[0]
    parts = num_parts(rows)
    if parts == 1:
        return function(*inputs)

    def part(start: int, end: int) -> Callable[[], tuple[mx.array, ...]]:
        return lambda: function(*(x[start:end] for x in inputs))

    results = in_parallel([part(start, end) for start, end in ranges(rows, parts)])
    return tuple(mx.concatenate(list(pieces)) for pieces in zip(*results, strict=True))
