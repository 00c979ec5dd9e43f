"""Which head layouts can be built, and what each offers."""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from skulk_core.heads.base import WiredHead
from skulk_core.models.base import Target
from skulk_core.types import Conventions, PositionRule


class HeadLayout(Protocol):
    """What a layout's file offers, under the name `LAYOUT`."""

    name: str
    prefix: str
    position_rules: frozenset[PositionRule]

    def normalise(self, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Tensors as files name them, to the names and shapes of `module`."""
        ...

    def module(self, target: Target) -> nn.Module:
        """A module with the head's parameters, not loaded."""
        ...

    def head(self, module: Any, target: Target, conventions: Conventions) -> WiredHead:
        """The head over a loaded module."""
        ...


# layout -> module with its `LAYOUT`, imported when first used
_LAYOUTS = {"qwen_mtp": "qwen_mtp"}


def head_layout(name: str) -> HeadLayout | None:
    """The layout called ``name``, None if there is no code for it."""
    if name not in _LAYOUTS:
        return None
    layout: HeadLayout = importlib.import_module(f"skulk_core.heads.{_LAYOUTS[name]}").LAYOUT
    return layout
