"""Which head layouts are known: how to tell one by its tensors, build it, and bring its tensors to our names."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Target
from skulk_core.types import Conventions


class HeadLayout(Protocol):
    """What a layout's file offers, under the name `LAYOUT`."""

    name: str
    prefix: str

    def normalise(self, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Tensors as files name them, to the names and shapes of `module`."""
        ...

    def module(self, target: Target) -> nn.Module:
        """A module with the head's parameters, not loaded."""
        ...

    def head(self, module: Any, target: Target, conventions: Conventions) -> DraftHead:
        """The head over a loaded module."""
        ...


# a tensor name that only this layout has -> module with its `LAYOUT`, imported when first used
_MARKS = {"mtp.": "qwen_mtp"}


def layout_of(names: Sequence[str]) -> HeadLayout | None:
    """The layout that tensors named ``names`` follow, None if no known one."""
    for mark, module_name in _MARKS.items():
        if any(local_name(name).startswith(mark) for name in names):
            layout: HeadLayout = importlib.import_module(f"skulk_core.heads.{module_name}").LAYOUT
            return layout
    return None


def local_name(name: str) -> str:
    """``name`` without the wrappers that multimodal checkpoints put around the text model."""
    for wrapper in ("model.", "language_model.", "model."):
        name = name.removeprefix(wrapper)
    return name
