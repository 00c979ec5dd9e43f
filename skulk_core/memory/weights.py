"""Bytes of a model's weights by layer, from what the files declare. Nothing is loaded."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

from skulk_core.errors import FileError
from skulk_core.formats.head_names import belongs_to_head, local_name
from skulk_core.hub.headers import DTYPE_BITS

ITEM_NBYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_LAYER = re.compile(r"layers\.(\d+)\.")
_FLOATS = ("F16", "BF16", "F32", "F64")
# FP8 weights become bfloat16 where mlx-lm does not keep them packed
_UNPACKED = {"F8_E4M3": 2, "F8_E5M2": 2}


class Declared(Protocol):
    """A tensor as a file declares it; `dtype` by safetensors' names."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class OuterParts:
    """Which modules besides the layers a stage needs, by their names in the text model, as `embed_tokens`.

    ``first``, ``middle`` and ``last`` by where the stage is; ``alone`` for a host with every layer.
    """

    first: frozenset[str]
    middle: frozenset[str]
    last: frozenset[str]
    alone: frozenset[str]

    def of(self, start: int, end: int, num_layers: int) -> frozenset[str]:
        """The parts that the stage ``[start, end)`` needs."""
        if start == 0:
            return self.alone if end == num_layers else self.first
        return self.last if end == num_layers else self.middle

    @property
    def every(self) -> frozenset[str]:
        """All of them."""
        return self.first | self.middle | self.last | self.alone


@dataclass(frozen=True)
class WeightBytes:
    """Bytes in memory once loaded: of every trunk layer, of every part besides, of a head the files carry."""

    layers: tuple[int, ...]
    parts: Mapping[str, int]
    head: int = 0
    dropped: int = field(default=0, compare=False)

    @property
    def trunk(self) -> int:
        """Layers and parts."""
        return sum(self.layers) + sum(self.parts.values())


def weigh(
    tensors: Iterable[Declared], num_layers: int, outer: OuterParts, dtype: str = "checkpoint", origin: str = "model"
) -> WeightBytes:
    """Bytes by layer and part of ``tensors``, loaded with ``dtype`` (`float32`, …, or `checkpoint`: as stored).

    What the family drops, as the vision part of a multimodal checkpoint, is not counted. Raises `FileError` if a
    layer has no tensor at all.
    """
    layers, parts = [0] * num_layers, dict.fromkeys(outer.every, 0)
    head = dropped = 0
    for tensor in tensors:
        nbytes = loaded_nbytes(tensor, dtype)
        match place_of(tensor.name, num_layers, outer.every):
            case int(layer):
                layers[layer] += nbytes
            case "head":
                head += nbytes
            case str(part):
                parts[part] += nbytes
            case None:
                dropped += nbytes
    if 0 in layers:
        raise FileError(origin, f"has no tensor of layer {layers.index(0)}, of {num_layers} in its configuration")
    return WeightBytes(tuple(layers), parts, head, dropped)


def place_of(name: str, num_layers: int, parts: Collection[str]) -> int | str | None:
    """The layer of a tensor, the part of ``parts`` it belongs to, `head`, or None for what is not loaded."""
    if belongs_to_head(name):
        return "head"
    local = local_name(name)
    if found := _LAYER.match(local):
        layer = int(found[1])
        # extra layers behind the trunk are heads of the `nextn` layout
        return layer if layer < num_layers else "head"
    return next((part for part in parts if local.startswith(f"{part}.")), None)


def loaded_nbytes(tensor: Declared, dtype: str) -> int:
    """Bytes of a tensor in memory: floating-point ones are cast to ``dtype``, packed ones stay as they are."""
    count = prod(tensor.shape)
    if tensor.dtype in _FLOATS and dtype in ITEM_NBYTES:
        return count * ITEM_NBYTES[dtype]
    if tensor.dtype in _UNPACKED:
        return count * ITEM_NBYTES.get(dtype, _UNPACKED[tensor.dtype])
    return count * DTYPE_BITS[tensor.dtype] // 8
