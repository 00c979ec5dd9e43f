"""Finding a model's head, settling its conventions, and building it: once per process."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from skulk_core.errors import ConventionsUnknown, OptionError, SidecarError
from skulk_core.formats.head_names import belongs_to_head, layout_of
from skulk_core.formats.sidecar import NoMetadata, SidecarMetadata, from_strings
from skulk_core.heads.base import DraftHead
from skulk_core.heads.registry import HeadLayout, head_layout
from skulk_core.heads.weights import add_norm_offset, check, prepare_quantized
from skulk_core.hub.headers import CheckpointHeaders, TensorHeader, read_headers, read_metadata
from skulk_core.models.loading import DTYPES, LoadedModel
from skulk_core.types import CONVENTION_NAMES, Conventions

# `trunk`: quantised as the trunk is, else its dtype. `auto` is chosen by `resolve_precision`.
PRECISIONS = ("auto", "trunk", *DTYPES, "8bit", "4bit")
AS_RELEASED = "as this family is released"
_GROUP_SIZE = 64
_AUTO_BITS = 8


@dataclass(frozen=True)
class HeadFiles:
    """Where a head's tensors are, what the file says of itself, and how the conventions were settled so far."""

    tensors: tuple[TensorHeader, ...]
    metadata: SidecarMetadata | NoMetadata
    origin: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names as the files have them."""
        return tuple(tensor.name for tensor in self.tensors)


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


def own_head(headers: CheckpointHeaders) -> HeadFiles | None:
    """The head that a checkpoint carries in its own files, or None."""
    found = tuple(tensor for tensor in headers.model if belongs_to_head(tensor.name))
    if not found:
        return None
    return HeadFiles(found, NoMetadata(()), headers.folder)


def sidecar_head(file: Path) -> HeadFiles:
    """The head in a sidecar file. Raises `FileError` or `FormatError`."""
    return HeadFiles(read_headers(file), from_strings(file, read_metadata(file)), file)


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
    conventions, because = _settle(model, files, stated(model, files, known, known_from), overrides or {})
    if conventions.position_rule not in layout.position_rules:
        raise SidecarError(files.origin, f"position rule {conventions.position_rule}: not one of {layout.name} heads")
    precision = resolve_precision(model, precision)
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
    module = layout.module(model.target)
    tensors = layout.normalise(read_tensors(files))
    prepare_quantized(module, tensors, files.origin, layout.prefix)
    check(module, tensors, files.origin, layout.prefix)
    module.load_weights(list(add_norm_offset(module, tensors, norm_offset).items()))
    _convert(module, model, precision)
    module.eval()
    mx.eval(module.parameters())
    return module


def resolve_precision(model: LoadedModel, precision: str) -> str:
    """What ``auto`` means for this model; any other precision as it is. Raises `OptionError`.

    As the trunk, but never fewer than 8 bits (4 cost the demo two points of acceptance, 8 none), and unquantised on a
    CPU, where packed products are slow at every width.
    """
    if precision not in PRECISIONS:
        raise OptionError("--head-precision", precision, f"not one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if model.quantization is None:
        return "trunk"
    if mx.default_device() == mx.cpu:
        return next(name for name, dtype in DTYPES.items() if dtype == model.target.dtype)
    return "8bit" if model.quantization.get("bits", _AUTO_BITS) < _AUTO_BITS else "trunk"


def read_tensors(files: HeadFiles) -> dict[str, mx.array]:
    """A head's tensors as its files have them, by name. Raises `SidecarError`."""
    wanted = set(files.names)
    out: dict[str, mx.array] = {}
    for file in sorted({tensor.file for tensor in files.tensors}):
        try:
            arrays = mx.load(str(file), format="safetensors")
        except (RuntimeError, ValueError) as error:
            raise SidecarError(files.origin, f"cannot be read by MLX: {error}") from error
        assert isinstance(arrays, dict)
        out.update({name: array for name, array in arrays.items() if name in wanted})
    return out


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
    released = model.target.released_conventions
    if isinstance(files.metadata, SidecarMetadata):
        return files.metadata.conventions, "sidecar metadata"
    if files.origin.is_dir() and released is not None:
        raw = released if _holds_raw_weights(model.headers) else _without_offset(released)
        return raw, AS_RELEASED
    return None if known is None else (known, known_from)


def _settle(
    model: LoadedModel, files: HeadFiles, said: tuple[Conventions, str] | None, overrides: Mapping[str, Any]
) -> tuple[Conventions, str]:
    """The head's conventions and where they are from: as somebody ``said``, else as the family's own heads."""
    released = model.target.released_conventions
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


def _holds_raw_weights(headers: CheckpointHeaders) -> bool:
    """Whether the files are as upstream releases them: mlx-lm's converter moves the convolutions' axes."""
    convolutions = [tensor for tensor in headers.model if tensor.name.endswith("conv1d.weight")]
    return not convolutions or convolutions[0].shape[-1] != 1


def _without_offset(conventions: Conventions) -> Conventions:
    return replace(conventions, norm_offset=0.0)


def _convert(module: nn.Module, model: LoadedModel, precision: str) -> None:
    """Cast ``module`` and quantise its large matrices."""
    dtype = DTYPES.get(precision, model.target.dtype)
    module.set_dtype(dtype)
    if precision == "trunk" and model.quantization is not None:
        settings = {key: model.quantization[key] for key in ("group_size", "bits", "mode") if key in model.quantization}
    elif precision in ("8bit", "4bit"):
        settings = {"group_size": _GROUP_SIZE, "bits": int(precision[0])}
    else:
        return

    def fits(path: str, layer: nn.Module) -> bool:
        if not hasattr(layer, "to_quantized") or path.endswith(("mlp.gate", "shared_expert_gate")):
            return False
        return bool(layer.weight.shape[-1] % settings["group_size"] == 0)

    nn.quantize(module, class_predicate=fits, **settings)
