"""Which host gets which layers: as their memories allow, and so that every stage takes about the same time.

A stage's time is its bytes of weights over its host's speed: a pass of few rows reads every weight once. Of the
divisions that fit, the one with the quickest slowest stage is taken, since prompts and run-ahead windows fill the ring
and flow at the pace of that stage. Legal boundaries are the family's. Pure arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from skulk_core.errors import PlanDoesNotFit, SplitError, TooManyHosts
from skulk_core.memory.caches import CacheShape, WorkingShape
from skulk_core.memory.division import Division
from skulk_core.memory.weights import OuterParts, WeightBytes
from skulk_core.types import LayerRange


@dataclass(frozen=True)
class Capacity:
    """A rank's host: bytes it may use, and a speed relative to the others."""

    name: str
    available_nbytes: int
    speed: float = 1.0


@dataclass(frozen=True)
class ModelBytes:
    """A model as a plan sees it. `head_nbytes` are the draft head's, with its caches."""

    weights: WeightBytes
    outer: OuterParts
    caches: tuple[CacheShape, ...]
    working: WorkingShape
    context: int
    item_nbytes: int
    head_nbytes: int = 0
    process_nbytes: int = 0
    split_points: tuple[int, ...] = ()
    division: Division = Division("", ())

    @property
    def num_layers(self) -> int:
        """Layers of the trunk."""
        return len(self.weights.layers)

    def need(self, start: int, end: int) -> "StageBytes":
        """Bytes of a stage with the layers ``[start, end)``."""
        last = end == self.num_layers
        parts = self.outer.of(start, end, self.num_layers)
        return StageBytes(
            layers=self._layers_before[end] - self._layers_before[start],
            parts=sum(self.weights.parts[part] for part in parts),
            head=self.head_nbytes if last else 0,
            caches=self._caches_before[end] - self._caches_before[start],
            working=self.working.nbytes(self.context, self.item_nbytes, decides=last) + self.process_nbytes,
        )

    def tensor_need(self, size: int, *, decides: bool) -> "StageBytes":
        """Bytes of one of ``size`` equal shares of every layer; draft head and LM head are whole, with the decider."""
        alone = self.need(0, self.num_layers)
        parts = self.outer.alone if decides else self.outer.first
        return StageBytes(
            layers=-(-alone.layers // size),
            parts=sum(self.weights.parts[part] for part in parts),
            head=alone.head if decides else 0,
            caches=-(-alone.caches // size),
            working=self.working.nbytes(self.context, self.item_nbytes, decides=decides) + self.process_nbytes,
        )

    @cached_property
    def _layers_before(self) -> list[int]:
        return _sums(self.weights.layers)

    @cached_property
    def _caches_before(self) -> list[int]:
        return _sums([shape.nbytes(self.context, self.item_nbytes) for shape in self.caches])


@dataclass(frozen=True)
class StageBytes:
    """What one rank must hold."""

    layers: int
    parts: int
    head: int
    caches: int
    working: int

    @property
    def weights(self) -> int:
        """Bytes that every pass reads."""
        return self.layers + self.parts + self.head

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.caches + self.working


@dataclass(frozen=True)
class PlacedStage:
    """One rank's part. `time` is its share of the slowest stage's time, 1 for the slowest."""

    host: str
    layers: LayerRange
    need: StageBytes
    available_nbytes: int
    time: float

    @property
    def short_nbytes(self) -> int:
        """Bytes that are missing; 0 if it fits."""
        return max(0, self.need.total - self.available_nbytes)


def place_pipeline(
    model: ModelBytes, hosts: Sequence[Capacity], split: Sequence[int] | None = None
) -> tuple[PlacedStage, ...]:
    """A stage for every host, in the order of the ranks. ``split`` are the numbers of layers, where somebody chose.

    Raises `SplitError` for more ranks than stages or a boundary where there may be none, `PlanDoesNotFit` with a row
    for every host.
    """
    edges = _chosen_edges(model, hosts, split) if split is not None else _best_edges(model, hosts)
    ranges = [LayerRange(start, end) for start, end in pairwise(edges)]
    needs = [model.need(one.start, one.end) for one in ranges]
    return _fitting(hosts, ranges, needs)


def place_tensor(model: ModelBytes, hosts: Sequence[Capacity]) -> tuple[PlacedStage, ...]:
    """An equal share of every layer for every host; the first of them decides.

    Raises `ShareError` where the layers have no such shares, `PlanDoesNotFit` where a host cannot hold its own.
    """
    size, whole = len(hosts), LayerRange(0, model.num_layers)
    if size > 1:
        model.division.check(size)
    needs = [model.tensor_need(size, decides=rank == 0) for rank in range(size)]
    return _fitting(hosts, [whole] * size, needs, f"each of {size} hosts needs an equal share of every layer")


def _fitting(
    hosts: Sequence[Capacity],
    ranges: Sequence[LayerRange],
    needs: Sequence[StageBytes],
    reason: str = "the model does not fit on these hosts",
) -> tuple[PlacedStage, ...]:
    times = [need.weights / host.speed for host, need in zip(hosts, needs, strict=True)]
    slowest = max(times) or 1.0
    placed = tuple(
        PlacedStage(host.name, layers, need, host.available_nbytes, time / slowest)
        for host, layers, need, time in zip(hosts, ranges, needs, times, strict=True)
    )
    if any(stage.short_nbytes for stage in placed):
        rows = [(one.host, one.need.total, one.available_nbytes, one.short_nbytes) for one in placed]
        raise PlanDoesNotFit(rows, reason)
    return placed


def _chosen_edges(model: ModelBytes, hosts: Sequence[Capacity], split: Sequence[int]) -> list[int]:
    said = ",".join(map(str, split))
    if len(split) != len(hosts):
        raise SplitError(f"--split {said} has {len(split)} numbers for {len(hosts)} hosts")
    if min(split) < 1 or sum(split) != model.num_layers:
        raise SplitError(
            f"--split {said}: the numbers must be at least 1 and make {model.num_layers} layers together; "
            f"{_legal(model)}"
        )
    edges = _sums(split)
    for edge in edges[1:-1]:
        if edge not in model.split_points:
            raise SplitError(f"--split {said}: no stage of this model may begin at layer {edge}; {_legal(model)}")
    return edges


def _best_edges(model: ModelBytes, hosts: Sequence[Capacity]) -> list[int]:
    """Edges of the stages with the least greatest shortage, then the least greatest time, then the least sum."""
    if len(hosts) > len(model.split_points) + 1:
        stages = len(model.split_points) + 1
        raise TooManyHosts(len(hosts), stages, f"{model.num_layers} layers; {_legal(model)}")
    edges = [0, *sorted(model.split_points), model.num_layers]
    # best[edge] = (cost of the ranks so far, their edges), each rank beginning where the one before ended
    best: dict[int, tuple[tuple[int, float, float], list[int]]] = {0: ((0, 0.0, 0.0), [0])}
    for rank, host in enumerate(hosts):
        is_last = rank == len(hosts) - 1
        found: dict[int, tuple[tuple[int, float, float], list[int]]] = {}
        for begin, ((short, slowest, total), before) in best.items():
            for end in [model.num_layers] if is_last else [edge for edge in edges if begin < edge < model.num_layers]:
                need = model.need(begin, end)
                time = need.weights / host.speed
                lacking = max(short, need.total - host.available_nbytes, 0)
                cost = (lacking, max(slowest, time), total + time)
                if end not in found or cost < found[end][0]:
                    found[end] = cost, [*before, end]
        best = found
    return best[model.num_layers][1]


def _legal(model: ModelBytes) -> str:
    points = model.split_points
    if not points:
        return "it cannot be divided"
    if points == tuple(range(points[0], points[-1] + 1)):
        return f"stages may begin at layers {points[0]} to {points[-1]}"
    return f"stages may begin at layers {', '.join(map(str, points))}"


def _sums(numbers: Sequence[int]) -> list[int]:
    sums = [0]
    for number in numbers:
        sums.append(sums[-1] + number)
    return sums
