"""Which head layouts can be built, and what each offers."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from skulk_core.heads.base import WiredHead
from skulk_core.heads.files import HeadFiles
from skulk_core.models.base import Target
from skulk_core.types import Conventions


class HeadLayout(Protocol):
    """What a layout's file offers, under the name `LAYOUT`.

    ``choices`` are the values that each convention can have in heads of this layout, all five; a norm offset is a
    number, of which these are the likely ones. ``released`` are those of upstream's own code where they do not depend
    on the trunk; None where the trunk's family decides. Layers whose path ends in one of ``unquantised`` stay as they
    are, and ``float16`` tells whether the head can be computed in it.
    """

    name: str
    prefix: str
    choices: Mapping[str, Sequence[Any]]
    released: Conventions | None
    unquantised: tuple[str, ...]
    float16: bool

    def normalise(self, tensors: Mapping[str, mx.array], files: HeadFiles) -> dict[str, mx.array]:
        """Tensors as ``files`` name them, to the names and shapes of `module`. Raises `SidecarError`."""
        ...

    def module(self, target: Target, files: HeadFiles) -> nn.Module:
        """A module with the head's parameters, not loaded. Raises `SidecarError` for a head of another model."""
        ...

    def head(self, module: Any, target: Target, conventions: Conventions) -> WiredHead:
        """The head over a loaded module."""
        ...


# layout -> module with its `LAYOUT`, imported when first used
_LAYOUTS = {"qwen_mtp": "qwen_mtp", "gemma4_assistant": "gemma4_assistant"}


def head_layout(name: str) -> HeadLayout | None:
    """The layout called ``name``, None if there is no code for it."""
    if name not in _LAYOUTS:
        return None
    layout: HeadLayout = importlib.import_module(f"skulk_core.heads.{_LAYOUTS[name]}").LAYOUT
    return layout
