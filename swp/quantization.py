"""What a checkpoint declares about its quantised weights. Nothing is guessed from shapes or counts.

Read from config.json's `quantization_config`, in the words of DeepSeek (`fp8` with `weight_block_size`),
compressed-tensors (`config_groups`) and NVIDIA's ModelOpt (`quant_algo`), and from DeepSeek V4's `expert_dtype`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Values(StrEnum):
    """What one stored element of a weight is."""

    FP8 = "fp8"
    INT8 = "int8"
    FP4 = "fp4"
    NVFP4 = "nvfp4"


class Reach(StrEnum):
    """What part of a weight one scale is for."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    BLOCK = "block"


@dataclass(frozen=True)
class Declared:
    """How a weight is said to be stored. `block` is rows and columns of one scale, for `Reach.BLOCK` only."""

    values: Values
    reach: Reach
    block: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Undeclared:
    """Nothing usable is declared for the weight; `reason` says what."""

    reason: str


_MX_GROUP = 32
_NVFP4_GROUP = 16


def declared_for(module: str, config: Mapping[str, Any], quantization: Mapping[str, Any]) -> Declared | Undeclared:
    """The declaration for the weight of `module`, its full name without `.weight`.

    `config` is the text model's configuration, `quantization` its `quantization_config`, which may be empty.
    """
    expert_dtype = config.get("expert_dtype")
    if expert_dtype is not None and re.search(r"\.experts\.\d+\.", module):
        if expert_dtype == "fp4":
            return Declared(Values.FP4, Reach.BLOCK, (1, _MX_GROUP))
        if expert_dtype != "fp8":
            return Undeclared(f"config.json says expert_dtype {expert_dtype!r}")
    match quantization.get("quant_method"):
        case None if not quantization:
            return Undeclared("config.json has no quantization_config")
        case "fp8":
            return _deepseek(quantization)
        case "compressed-tensors":
            return _compressed_tensors(module, quantization)
        case "modelopt":
            return _modelopt(module, quantization)
        case other:
            return Undeclared(f"quant_method {other!r} of config.json is not known")


def _deepseek(quantization: Mapping[str, Any]) -> Declared | Undeclared:
    block = quantization.get("weight_block_size")
    if block is None:
        return Declared(Values.FP8, Reach.TENSOR)
    size = _block(block)
    return Undeclared(f"weight_block_size is {block!r}") if size is None else Declared(Values.FP8, Reach.BLOCK, size)


def _compressed_tensors(module: str, quantization: Mapping[str, Any]) -> Declared | Undeclared:
    groups = quantization.get("config_groups")
    found = [group for group in groups.values() if _targets(group, module)] if isinstance(groups, dict) else []
    weights = found[0].get("weights") if found else None
    if not isinstance(weights, dict):
        return Undeclared("no group of quantization_config describes its weights")
    if weights.get("symmetric") is False:
        return Undeclared("its quantisation has zero points")
    kind, num_bits = weights.get("type"), weights.get("num_bits")
    strategy, group_size = weights.get("strategy"), weights.get("group_size")
    if (kind, num_bits) == ("float", 4) and strategy == "tensor_group" and group_size == _NVFP4_GROUP:
        return Declared(Values.NVFP4, Reach.BLOCK, (1, _NVFP4_GROUP))
    values = {("float", 8): Values.FP8, ("int", 8): Values.INT8}.get((str(kind), num_bits if num_bits == 8 else 0))
    if values is None:
        return Undeclared(f"quantisation to {num_bits} bits of type {kind!r} is not known")
    match strategy:
        case "tensor" | "channel":
            return Declared(values, Reach(strategy))
        case "group" if type(group_size) is int and group_size > 0:
            return Declared(values, Reach.BLOCK, (1, group_size))
        case "block" if (size := _block(weights.get("block_structure"))) is not None:
            return Declared(values, Reach.BLOCK, size)
    return Undeclared(f"quantisation strategy {strategy!r} is not known")


def _targets(group: Any, module: str) -> bool:
    targets = group.get("targets") if isinstance(group, dict) else None
    for target in targets if isinstance(targets, list) else []:
        if target in ("Linear", module):
            return True
        if isinstance(target, str) and target.startswith("re:"):
            try:
                if re.match(target.removeprefix("re:"), module):
                    return True
            except re.error:
                continue
    return False


def _modelopt(module: str, quantization: Mapping[str, Any]) -> Declared | Undeclared:
    nested = quantization.get("quantization")
    part: Mapping[str, Any] = nested if isinstance(nested, dict) else quantization
    if part.get("quant_algo") == "MIXED_PRECISION":
        layers = part.get("quantized_layers")
        listed = layers.get(module) if isinstance(layers, dict) else None
        if not isinstance(listed, dict):
            return Undeclared("ModelOpt's quantized_layers do not list it")
        part = listed
    match part.get("quant_algo"):
        case "FP8":
            return Declared(Values.FP8, Reach.TENSOR)
        case "FP8_PER_CHANNEL_PER_TOKEN":
            return Declared(Values.FP8, Reach.CHANNEL)
        case "NVFP4" if part.get("group_size", _NVFP4_GROUP) == _NVFP4_GROUP:
            return Declared(Values.NVFP4, Reach.BLOCK, (1, _NVFP4_GROUP))
        case other:
            return Undeclared(f"ModelOpt's quant_algo {other!r} is not known")


def _block(value: object) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(size) is int and size > 0 for size in value):
        return value[0], value[1]
    return None
