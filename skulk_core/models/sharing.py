"""Tensor parallel: cutting a rank's share out of every layer, and the places where the shares are added up.

mlx-lm's `shard` says which weights are cut and how. What it puts into a layer to talk to the other ranks is taken out
again: a rank talks in `Summed` alone, so that every message is counted, and all ranks send theirs in the order of one
program. Collectives are matched by their order and nothing else; two ranks that ran different passes, or let MLX
choose when to evaluate what, would add up unrelated arrays or wait for ever.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import (
    AllToShardedLinear,
    QuantizedAllToShardedLinear,
    QuantizedShardedToAllLinear,
    ShardedToAllLinear,
)
from mlx.utils import tree_map

from skulk_core.memory.division import Part
from skulk_core.models.light import linear

_CUT_ROWS = AllToShardedLinear | QuantizedAllToShardedLinear
_CUT_COLUMNS = ShardedToAllLinear | QuantizedShardedToAllLinear


@dataclass(frozen=True)
class Place:
    """One rank of several, as mlx-lm's `shard` asks an `mx.distributed.Group` for it."""

    rank_: int
    size_: int

    def rank(self) -> int:
        """Which one."""
        return self.rank_

    def size(self) -> int:
        """Of how many."""
        return self.size_


class Adder:
    """Adds arrays up over all ranks, once somebody has said how: before the first pass."""

    def __init__(self) -> None:
        self.add_up: Callable[[mx.array], mx.array] | None = None

    def __call__(self, share: mx.array) -> mx.array:
        """The sum of every rank's ``share``."""
        assert self.add_up is not None, "a share of a model runs with the others or not at all"
        return self.add_up(share)


class Summed(nn.Module):
    """A module whose weights are a share: its result is added up over the ranks, then ``bias`` is added once."""

    def __init__(self, inner: nn.Module, adder: Adder, bias: mx.array | None = None) -> None:
        super().__init__()
        self.inner = inner
        if bias is not None:
            self.bias = bias
        self._adder = adder
        self._run: Callable[[mx.array], mx.array] | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """As the whole module would give it."""
        if self._run is None:
            # not before the first pass: by then the weights are read
            self._run = linear(self.inner)
        summed = self._adder(self._run(x))
        return summed + self.bias if "bias" in self else summed


def cut(model: Any, rank: int, size: int) -> None:
    """Leave of every layer of an mlx-lm ``model`` the share of ``rank``; nothing is read. Raises `ValueError`."""
    try:
        model.shard(Place(rank, size))
    except AssertionError as error:
        raise ValueError(str(error)) from error


def sum_here(layer: Any, adder: Adder) -> None:
    """Have a ``layer`` that was cut add its shares up by ``adder`` and not by itself."""
    replaced = tree_map(lambda module: _own(module, adder), layer.leaf_modules(), is_leaf=nn.Module.is_module)
    layer.update_modules(replaced)
    if getattr(layer.mlp, "sharding_group", None) is not None:
        # experts: their block adds up once, for all of them
        layer.mlp.sharding_group = None
        layer.mlp = Summed(layer.mlp, adder)


def mlp_parts(layers: Iterable[Any]) -> tuple[Part, ...]:
    """What is divided in the MLPs, dense or sparse, of ``layers``."""
    found: dict[str, Part] = {}
    for layer in layers:
        mlp = layer.mlp
        widths: Mapping[str, Any] = {
            "MLP columns": mlp.get("gate_proj"),
            "columns of an expert": mlp["switch_mlp"]["gate_proj"] if "switch_mlp" in mlp else None,
            "columns of the shared expert": mlp["shared_expert"]["gate_proj"] if "shared_expert" in mlp else None,
        }
        for name, module in widths.items():
            if module is not None:
                found[name] = Part(name, int(module.weight.shape[-2]), is_packed=True)
    return tuple(found.values())


def _own(module: Any, adder: Adder) -> Any:
    """MLX's linear layer of a share as one that adds up by ``adder``, or that has nothing to add up."""
    if isinstance(module, _CUT_ROWS):
        return _linear(module, module.get("bias"))
    if isinstance(module, _CUT_COLUMNS):
        return Summed(_linear(module, None), adder, module.get("bias"))
    return module


def _linear(module: Any, bias: mx.array | None) -> nn.Module:
    weights = {name: array for name, array in module.items() if name != "bias" and array is not None}
    if bias is not None:
        weights["bias"] = bias
    if "scales" not in module:
        made: nn.Module = nn.Linear(1, 1, bias=False)
    else:
        kept = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
        made = nn.QuantizedLinear(module.group_size, 1, bias=False, **kept)
    for name, array in weights.items():
        setattr(made, name, array)
    return made
