"""Settling the conventions of a head that was found, and building it: once per process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from skulk_core.errors import ConventionsUnknown, OptionError, SidecarError
from skulk_core.formats.head_names import layout_of
from skulk_core.formats.sidecar import SidecarMetadata
from skulk_core.heads.base import DraftHead
from skulk_core.heads.files import HeadFiles
from skulk_core.heads.registry import HeadLayout, head_layout
from skulk_core.heads.weights import add_norm_offset, check, prepare_quantized
from skulk_core.hub.headers import CheckpointHeaders
from skulk_core.models.dense_layout import lay_out
from skulk_core.models.loading import DTYPES, LoadedModel
from skulk_core.types import CONVENTION_NAMES, Conventions

# `trunk`: quantised as the trunk is, else its dtype. `auto` is chosen by `resolve_precision`.
PRECISIONS = ("auto", "trunk", *DTYPES, "8bit", "4bit")
AS_RELEASED = "this family's releases"
_GROUP_SIZE = 64
_AUTO_BITS = 8


@dataclass(frozen=True)
class LoadedHead:
    """A head ready to draft, and how it came to its conventions and precision."""

    head: DraftHead
    layout: str
    conventions: Conventions
    conventions_from: str
    precision: str
    origin: Path
    nbytes: int


def load_head(
    model: LoadedModel,
    files: HeadFiles,
    *,
    precision: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    known: Conventions | None = None,
    known_from: str = "catalog",
) -> LoadedHead:
    """Build, validate, cast and quantise a head for ``model``.

    ``known`` are conventions from ``known_from``; ``overrides`` single ones from the user, which win over everything.
    Raises `SidecarError` for a head of another model, `ConventionsUnknown`, `OptionError`.
    """
    layout = fitting_layout(model, files)
    conventions, because = _settle(model, layout, files, stated(model, files, known, known_from), overrides or {})
    _check_conventions(conventions, layout, files)
    precision = resolve_precision(model, precision, layout)
    module = head_module(model, files, layout, conventions.norm_offset, precision)
    nbytes = sum(array.nbytes for _, array in tree_flatten(module.parameters()))
    head = layout.head(module, model.target, conventions)
    return LoadedHead(head, layout.name, conventions, because, precision, files.origin, nbytes)


def head_module(
    model: LoadedModel, files: HeadFiles, layout: HeadLayout, norm_offset: float, precision: str
) -> nn.Module:
    """A head's weights, checked, with ``norm_offset`` in its norms, cast and quantised.

    ``precision`` is one that `resolve_precision` gives. Raises `SidecarError`.
    """
    module, tensors = _checked(model, files, layout)
    module.load_weights(list(add_norm_offset(module, tensors, norm_offset).items()))
    _convert(module, model, layout, precision)
    module.eval()
    mx.eval(module.parameters())
    lay_out([module])
    return module


def require_fit(model: LoadedModel, files: HeadFiles) -> None:
    """Raise `SidecarError` for a head of another model; no weight of either is read."""
    _checked(model, files, fitting_layout(model, files))


def _checked(model: LoadedModel, files: HeadFiles, layout: HeadLayout) -> tuple[nn.Module, dict[str, mx.array]]:
    """A head's module and the tensors for it, of the right names and shapes."""
    module = layout.module(model.target, files)
    tensors = layout.normalise(files.read(), files)
    prepare_quantized(module, tensors, files.origin, layout.prefix)
    check(module, tensors, files.origin, layout.prefix)
    return module, tensors


def resolve_precision(model: LoadedModel, precision: str, layout: HeadLayout) -> str:
    """What ``auto`` means for a head of ``layout`` on this model; any other precision as it is. Raises `OptionError`.

    As the trunk, but never fewer than 8 bits (4 cost the demo two points of acceptance, 8 none), and unquantised on a
    CPU, where packed products are slow at every width. A head that cannot be computed in float16 takes bfloat16 beside
    a trunk that is.
    """
    if precision not in PRECISIONS:
        raise OptionError("--head-precision", precision, f"not one of {', '.join(PRECISIONS)}")
    if precision == "float16" and not layout.float16:
        raise OptionError("--head-precision", precision, f"a {layout.name} head overflows in it; take bfloat16")
    if precision not in ("auto", "trunk"):
        return precision
    in_trunk = next(name for name, dtype in DTYPES.items() if dtype == model.target.dtype)
    dtype = in_trunk if layout.float16 or in_trunk != "float16" else "bfloat16"
    if model.quantization is None:
        return "trunk" if dtype == in_trunk else dtype
    if precision == "trunk":
        return precision
    if mx.default_device() == mx.cpu:
        return dtype
    return "8bit" if model.quantization.get("bits", _AUTO_BITS) < _AUTO_BITS else "trunk"


def fitting_layout(model: LoadedModel, files: HeadFiles) -> HeadLayout:
    """The layout of the tensors, which the metadata must confirm, as it must the trunk. Raises `SidecarError`."""
    name = layout_of(files.names)
    layout = None if name is None else head_layout(name)
    said = files.metadata.layout if isinstance(files.metadata, SidecarMetadata) else name
    if layout is None or said != name:
        found = f"layout {said}" if said else f"{len(files.names)} tensors, such as {', '.join(files.names[:1])}"
        raise SidecarError(files.origin, f"holds no head in a layout known here ({found})", files.names[:1])
    if isinstance(files.metadata, SidecarMetadata) and files.metadata.num_heads != 1:
        raise SidecarError(files.origin, f"says that it holds {files.metadata.num_heads} heads; a {name} head is one")
    _check_fingerprint(model, files)
    return layout


def _check_fingerprint(model: LoadedModel, files: HeadFiles) -> None:
    """Refuse a sidecar whose metadata names another trunk; shapes alone do not show a wrong vocabulary.

    RoPE's base is not compared: fine-tunes for longer contexts change it and keep their head's use.
    """
    if not isinstance(files.metadata, SidecarMetadata):
        return
    target, trunk = model.target, files.metadata.trunk
    ours = {"hidden_size": target.hidden_size, "vocab_size": target.vocab_size, "num_layers": target.num_layers}
    for name, value in ours.items():
        if getattr(trunk, name) != value:
            raise SidecarError(
                files.origin,
                f"made for a trunk with {name} {getattr(trunk, name)} ({files.metadata.source_repo}); "
                f"this model has {value}: a sidecar of another model",
            )


def stated(
    model: LoadedModel, files: HeadFiles, known: Conventions | None, known_from: str = "catalog"
) -> tuple[Conventions, str] | None:
    """The conventions that somebody states for this very head, and who does; None where nobody does.

    A release of the family says how the head in one of its own checkpoints is wired, and of a sidecar nothing.
    """
    if isinstance(files.metadata, SidecarMetadata):
        return files.metadata.conventions, "sidecar metadata"
    released = model.target.released_conventions
    if files.origin == model.headers.folder and released is not None:
        raw = released if _holds_raw_weights(model.headers) else _without_offset(released)
        return raw, AS_RELEASED
    return None if known is None else (known, known_from)


def released_conventions(model: LoadedModel, layout: HeadLayout) -> Conventions | None:
    """How upstream's own code wires heads of ``layout``, or those of the trunk's family; None where none is released.

    They are a start and a tie-breaker: a head that says nothing of itself is measured.
    """
    return layout.released or model.target.released_conventions


def _settle(
    model: LoadedModel,
    layout: HeadLayout,
    files: HeadFiles,
    said: tuple[Conventions, str] | None,
    overrides: Mapping[str, Any],
) -> tuple[Conventions, str]:
    """The head's conventions and where they are from: as somebody ``said``, else as the family's own heads."""
    released = released_conventions(model, layout)
    if said is not None:
        base, because = said
    elif released is not None:
        base, because = released, AS_RELEASED
    elif set(overrides) == set(CONVENTION_NAMES):
        base, because = Conventions(), "options"
    else:
        raise ConventionsUnknown(
            files.origin, "has no metadata, is not in the catalog, and no release of this family says how it is wired"
        )
    if not overrides:
        return base, because
    return replace(base, **overrides), f"{because}; {', '.join(overrides)} by option"


def _check_conventions(conventions: Conventions, layout: HeadLayout, files: HeadFiles) -> None:
    """Refuse words that mean nothing for heads of ``layout``; a norm offset may be any number."""
    for name, value in asdict(conventions).items():
        if isinstance(value, StrEnum) and value not in layout.choices[name]:
            known = " or ".join(layout.choices[name])
            raise SidecarError(files.origin, f"{name} {value}: {layout.name} heads have {known}")


def _holds_raw_weights(headers: CheckpointHeaders) -> bool:
    """Whether the files are as upstream releases them: mlx-lm's converter moves the convolutions' axes."""
    convolutions = [tensor for tensor in headers.model if tensor.name.endswith("conv1d.weight")]
    return not convolutions or convolutions[0].shape[-1] != 1


def _without_offset(conventions: Conventions) -> Conventions:
    return replace(conventions, norm_offset=0.0)


def _convert(module: nn.Module, model: LoadedModel, layout: HeadLayout, precision: str) -> None:
    """Cast ``module`` and quantise its large matrices."""
    dtype = DTYPES.get(precision, model.target.dtype)
    module.set_dtype(mx.bfloat16 if dtype == mx.float16 and not layout.float16 else dtype)
    if precision == "trunk" and model.quantization is not None:
        settings = {key: model.quantization[key] for key in ("group_size", "bits", "mode") if key in model.quantization}
    elif precision in ("8bit", "4bit"):
        settings = {"group_size": _GROUP_SIZE, "bits": int(precision[0])}
    else:
        return

    def fits(path: str, layer: nn.Module) -> bool:
        if not hasattr(layer, "to_quantized") or path.endswith(layout.unquantised):
            return False
        return bool(layer.weight.shape[-1] % settings["group_size"] == 0)

    nn.quantize(module, class_predicate=fits, **settings)
