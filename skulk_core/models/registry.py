"""Which adapter serves which mlx-lm model type. A new family is one file and one line here."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_lm.utils import MODEL_REMAPPING

from skulk_core.errors import NotATarget, UnsupportedModel
from skulk_core.formats.head_names import is_assistant
from skulk_core.models.base import Target
from skulk_core.types import LayerRange

# mlx-lm module (its model type after mlx-lm's own renaming) -> "module:class", imported when first used
_ADAPTERS = {
    "qwen3_5": "qwen3_5:Qwen35Target",
    "qwen3_5_moe": "qwen3_5:Qwen35Target",
    "qwen3_next": "qwen3_next:Qwen3NextTarget",
    "llama": "plain:PlainTarget",
    "qwen2": "plain:PlainTarget",
    "qwen2_moe": "plain:PlainTarget",
    "qwen3": "plain:PlainTarget",
    "qwen3_moe": "plain:PlainTarget",
    "mixtral": "plain:PlainTarget",
    "olmo2": "plain:PlainTarget",
    "olmoe": "plain:PlainTarget",
    "phi3": "plain:PlainTarget",
    "seed_oss": "plain:PlainTarget",
    "smollm3": "plain:PlainTarget",
    "hunyuan_v1_dense": "plain:PlainTarget",
    "glm4": "plain:PlainTarget",
    "gemma4": "gemma4:Gemma4Target",
    "gemma4_text": "gemma4:Gemma4Target",
}

# model type as a checkpoint says it -> module that tells what its configuration means in mlx-lm's words
_CONFIGS = {
    "gemma4": "gemma4_config",
    "gemma4_text": "gemma4_config",
    "gemma4_unified": "gemma4_config",
    "gemma4_unified_text": "gemma4_config",
}


def supported_types() -> tuple[str, ...]:
    """Model types with an adapter, by mlx-lm's names."""
    return tuple(sorted(_ADAPTERS))


def accepted_types() -> tuple[str, ...]:
    """Model types that a checkpoint may say: those with an adapter, and those that mlx-lm takes for one of them."""
    renamed = {said for said, module in MODEL_REMAPPING.items() if module in _ADAPTERS}
    return tuple(sorted({*_ADAPTERS, *_CONFIGS, *renamed}))


def unsupported(model_type: str, model: Path | str) -> UnsupportedModel:
    """What to raise for a checkpoint ``model`` of a type without an adapter."""
    if is_assistant(model_type):
        return NotATarget(model_type, accepted_types(), model)
    return UnsupportedModel(model_type, accepted_types())


def config_changes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Entries to replace in a checkpoint's ``config`` so that mlx-lm reads it as its makers do; for most none."""
    module = _CONFIGS.get(config["model_type"])
    if module is None:
        return {}
    changes: dict[str, Any] = importlib.import_module(f"skulk_core.models.{module}").config_changes(config)
    return changes


def require_adapter(model_class: type) -> str:
    """mlx-lm's name for the type of a model class. Raises `UnsupportedModel` if it has no adapter."""
    name = model_class.__module__.rpartition(".")[2]
    if name not in _ADAPTERS:
        raise UnsupportedModel(name, accepted_types())
    return name


def make_target(model: Any, layer_range: LayerRange | None = None) -> Target:
    """The adapter of an mlx-lm ``model`` over ``layer_range``. Raises `UnsupportedModel`."""
    module_name, _, class_name = _ADAPTERS[require_adapter(type(model))].partition(":")
    adapter: type[Target] = getattr(importlib.import_module(f"skulk_core.models.{module_name}"), class_name)
    return adapter(model, layer_range)
