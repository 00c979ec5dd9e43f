"""A head's tensors as files hold them, brought to the names and shapes of our module, and checked against it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import infer_quant_config

from skulk_core.errors import SidecarError

_EXPERT = re.compile(r"(.*\.)experts\.(\d+)\.(\w+)\.(weight|scales|biases)")
_NAMED_AT_MOST = 6


def stack_experts(tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Both released layouts of experts to mlx-lm's `switch_mlp`: one tensor per expert, or fused gate and up."""
    out: dict[str, mx.array] = {}
    single: dict[str, dict[int, mx.array]] = {}
    for name, tensor in tensors.items():
        if match := _EXPERT.fullmatch(name):
            prefix, index, projection, kind = match.groups()
            single.setdefault(f"{prefix}switch_mlp.{projection}.{kind}", {})[int(index)] = tensor
        elif name.endswith("experts.gate_up_proj"):
            prefix = name.removesuffix("experts.gate_up_proj")
            half = tensor.shape[-2] // 2
            out[f"{prefix}switch_mlp.gate_proj.weight"] = tensor[..., :half, :]
            out[f"{prefix}switch_mlp.up_proj.weight"] = tensor[..., half:, :]
        elif name.endswith("experts.down_proj"):
            out[f"{name.removesuffix('experts.down_proj')}switch_mlp.down_proj.weight"] = tensor
        else:
            out[name] = tensor
    for name, experts in single.items():
        # a missing expert shows as a wrong first dimension when shapes are checked
        out[name] = mx.stack([experts[index] for index in sorted(experts)])
    return out


def prepare_quantized(module: nn.Module, tensors: Mapping[str, mx.array], path: Path, prefix: str) -> None:
    """Make the layers of ``module`` whose files hold packed weights and scales into quantised ones.

    Raises `SidecarError` for packed weights that no packing of this module's sizes could give.
    """

    def settings(name: str, layer: nn.Module) -> bool | dict[str, Any]:
        if f"{name}.scales" not in tensors or f"{name}.weight" not in tensors or not hasattr(layer, "to_quantized"):
            return False
        try:
            inferred: dict[str, Any] = infer_quant_config(name, layer, dict(tensors))
            mx.quantize(mx.zeros((1, layer.weight.shape[-1])), **inferred)
        except ValueError as error:
            reason = f"{prefix}{name} is packed for another size than this model's: a head of another model"
            raise SidecarError(path, reason, [name]) from error
        return inferred

    if any(name.endswith(".scales") for name in tensors):
        nn.quantize(module, class_predicate=settings)


def check(module: nn.Module, tensors: Mapping[str, mx.array], path: Path, prefix: str) -> None:
    """Raise `SidecarError` naming what is missing, surplus or of another shape than ``module`` has."""
    expected = dict(tree_flatten(module.parameters()))
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise SidecarError(path, f"lacks {_listed(missing, prefix)}", missing)
    surplus = [name for name in tensors if name not in expected]
    if surplus:
        raise SidecarError(path, f"has tensors this model's head does not: {_listed(surplus, prefix)}", surplus)
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            ours, theirs = tuple(expected[name].shape), tuple(tensor.shape)
            raise SidecarError(
                path,
                f"{prefix}{name} is {list(theirs)} and this model needs {list(ours)}: a sidecar of another model",
                [name],
            )
        if mx.issubdtype(tensor.dtype, mx.floating) != mx.issubdtype(expected[name].dtype, mx.floating):
            stored = str(tensor.dtype).removeprefix("mlx.core.")
            raise SidecarError(path, f"{prefix}{name} is stored as {stored}, which cannot be computed with", [name])


def add_norm_offset(module: nn.Module, tensors: Mapping[str, mx.array], offset: float) -> dict[str, mx.array]:
    """``tensors`` with ``offset`` added to every RMSNorm weight, in float32, before any cast."""
    norms = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.RMSNorm)}
    return {
        name: tensor.astype(mx.float32) + offset if offset and name in norms else tensor
        for name, tensor in tensors.items()
    }


def _listed(names: list[str], prefix: str) -> str:
    shown = ", ".join(prefix + name for name in sorted(names)[:_NAMED_AT_MOST])
    more = len(names) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
