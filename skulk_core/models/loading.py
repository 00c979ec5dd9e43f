"""From a checkpoint folder to a target and its tokenizer, through mlx-lm's own loaders."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from huggingface_hub.errors import StrictDataclassError
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.utils import _get_classes as mlx_lm_classes
from mlx_lm.utils import load_model, load_tokenizer

from skulk_core.errors import FileError, OptionError
from skulk_core.formats.elsewhere import AbsentTensor
from skulk_core.formats.head_names import belongs_to_head
from skulk_core.hub.headers import CheckpointHeaders, read_checkpoint_headers
from skulk_core.models.base import Target
from skulk_core.models.registry import config_changes, make_target, require_adapter, unsupported
from skulk_core.models.renamed_files import as_mlx_lm_finds_it
from skulk_core.types import LayerRange

# What a configuration with a wrong value raises somewhere in mlx-lm or transformers.
FILES_AT_FAULT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_TEXT_PARTS = ("qwen3_5_text", "qwen3_5_moe_text")

# what `mx.load` makes of safetensors' dtypes; others are bytes
_STORED_DTYPES = {"F32": mx.float32, "BF16": mx.bfloat16, "F16": mx.float16, "U32": mx.uint32, "I32": mx.int32}

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


@dataclass(frozen=True)
class Parts:
    """mlx-lm's reading of files: a model, its configuration, what the files declare, and how to make the tokenizer.

    ``dtype`` is a key of `DTYPES` that unquantised weights must be cast to where nobody chose another, None where they
    are of one dtype already.
    """

    model: Any
    config: dict[str, Any]
    headers: CheckpointHeaders
    make_tokenizer: Callable[[], Any]
    dtype: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint ready to decode.

    ``config`` is mlx-lm's reading of `config.json` with `generation_config.json`; ``tokenizer`` mlx-lm's wrapper;
    ``headers`` what the checkpoint's files declare, the head it may carry included.
    """

    target: Target
    tokenizer: Any
    config: Mapping[str, Any]
    headers: CheckpointHeaders

    @property
    def context_tokens(self) -> int | None:
        """Positions the model was made for, None where its configuration does not say."""
        limit = text_config(self.config).get("max_position_embeddings")
        return limit if isinstance(limit, int) else None

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """mlx-lm's quantisation settings of the trunk, None where it is not quantised."""
        found = self.config.get("quantization")
        return found if isinstance(found, Mapping) else None

    @property
    def nbytes(self) -> int:
        """Bytes of the weights this host holds."""
        return sum(array.nbytes for array in held_weights(self.target))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that describes the text model."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint. Raises `FileError`."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(file, "no such file; a model is a folder with config.json and *.safetensors") from None
    except OSError as error:
        raise FileError(file, error.strerror or str(error)) from error
    except ValueError as error:
        raise FileError(file, f"not valid JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise FileError(file, "names no model_type")
    return config


def load(
    path: Path,
    dtype: str = "checkpoint",
    layer_range: LayerRange | None = None,
    absent: Sequence[AbsentTensor] = (),
) -> LoadedModel:
    """Load the layers ``layer_range`` of the checkpoint in the folder ``path``, or of the GGUF file ``path``.

    Other layers of a folder are never read. ``dtype`` is the dtype of activations and unquantised weights: a key of
    `DTYPES`, or `checkpoint` for what the files hold (of a GGUF file, which mixes them, `Parts.dtype`; of a model that
    overflows in float16 and was stored in it, bfloat16). ``absent`` are tensors in files that are not in the folder,
    none of them of these layers. Raises `FileError`, `UnsupportedModel`, `OptionError`.
    """
    loaded = outline(path, dtype, layer_range, absent)
    read_weights(loaded)
    return loaded


def read_weights(model: LoadedModel) -> None:
    """Read the weights that this host holds of a model whose outline was made."""
    mx.eval(held_weights(model.target))
    model.target.lay_out()


def outline(
    path: Path,
    dtype: str = "checkpoint",
    layer_range: LayerRange | None = None,
    absent: Sequence[AbsentTensor] = (),
) -> LoadedModel:
    """As `load`, but no weight of a folder is read before it is used: for its shape, its text and its tokenizer."""
    parts = _load_gguf(path) if path.is_file() else _load_folder(path, absent)
    target = make_target(parts.model, layer_range)
    wanted = _fitting_dtype(target, parts.dtype) if dtype == "checkpoint" else dtype
    if wanted is not None:
        if wanted not in DTYPES:
            raise OptionError("--dtype", wanted, f"not one of auto, {', '.join(DTYPES)}")
        if wanted == "float16" and target.overflows_in_float16:
            raise OptionError("--dtype", wanted, "this model's activations overflow in it; take bfloat16 or float32")
        cast(parts.model, DTYPES[wanted])
    target.drop_parts_of_others()
    return LoadedModel(target, parts.make_tokenizer(), parts.config, parts.headers)


def _fitting_dtype(target: Target, named: str | None) -> str | None:
    """The dtype to cast to where nobody chose one: ``named``, but none that the model overflows in."""
    in_float16 = named == "float16" or (named is None and target.dtype == mx.float16)
    return "bfloat16" if in_float16 and target.overflows_in_float16 else named


def _load_gguf(file: Path) -> Parts:
    # it stands on this module, and few runs need it
    from skulk_core.models.gguf import load_gguf

    return load_gguf(file)


def _load_folder(folder: Path, absent: Sequence[AbsentTensor] = ()) -> Parts:
    said = read_config(folder)
    model_type = said["model_type"]
    headers = read_checkpoint_headers(folder, {tensor.file for tensor in absent})
    try:
        changes = {**renamed(model_type), **config_changes(said)}
        classes = partial(_trunk_classes, absent=absent)
        weights = sorted({tensor.file for tensor in headers.model})
        with as_mlx_lm_finds_it(folder, weights) as found:
            model, config = load_model(found, lazy=True, model_config=changes, get_model_classes=classes)
    except (*FILES_AT_FAULT, OSError) as error:
        # mlx-lm says this of a type it has no module for; everything else is about the files
        if "not supported" in str(error) and model_type in str(error):
            raise unsupported(model_type, folder) from error
        raise FileError(folder, f"mlx-lm cannot load it: {shortened(str(error))}") from error
    return Parts(model, config, headers, partial(make_tokenizer, folder, config, folder))


def renamed(model_type: str) -> dict[str, str]:
    """Overrides for a configuration that transformers saved of a text part alone, which mlx-lm knows as the whole."""
    whole = model_type.removesuffix("_text")
    return {"model_type": whole} if model_type in _TEXT_PARTS else {}


def _trunk_classes(config: dict[str, Any], absent: Sequence[AbsentTensor]) -> tuple[type, type]:
    """mlx-lm's classes for ``config``, with a model that leaves a checkpoint's own head out of its weights.

    Families that are released with a head drop it themselves; any other, and some converted checkpoints, would refuse
    the surplus tensors.
    """
    model_class, args_class = mlx_lm_classes(config)
    require_adapter(model_class)

    def sanitize(self: Any, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        # how a family reads its weights can depend on which there are: those of other hosts are named, and never read
        elsewhere = {tensor.name: _placeholder(tensor) for tensor in absent}
        trunk = {name: weight for name, weight in {**elsewhere, **weights}.items() if not belongs_to_head(name)}
        done: dict[str, mx.array] = model_class.sanitize(self, trunk) if hasattr(model_class, "sanitize") else trunk
        return done

    # keeps its module's name, by which the registry knows it
    names = {"sanitize": sanitize, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), names), args_class


def _placeholder(tensor: AbsentTensor) -> mx.array:
    """A view of one zero in the shape of a tensor that another host has."""
    return mx.broadcast_to(mx.zeros((), _STORED_DTYPES.get(tensor.dtype, mx.uint8)), tensor.shape)


def shortened(message: str) -> str:
    """mlx-lm names every tensor that does not fit, a line each; three say as much as a thousand."""
    lines = message.splitlines()
    return " ".join(lines[:4]) + (f" and {len(lines) - 4} more" if len(lines) > 4 else "")


def cast(model: Any, dtype: mx.Dtype) -> None:
    """Cast floating-point weights, quantisation scales included, but those the family keeps (`cast_predicate`)."""
    owner = getattr(model, "language_model", model)
    wanted = getattr(owner, "cast_predicate", None) or (lambda path: True)

    def convert(path: str, array: mx.array) -> mx.array:
        return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) and wanted(path) else array

    model.update(tree_map_with_path(convert, model.parameters()))


def held_weights(target: Target) -> list[mx.array]:
    """The weights that this host needs: those of its layers, and see `Target.outer_modules`."""
    modules = [*target.layers, *target.outer_modules()]
    return [array for module in modules for _, array in tree_flatten(module.parameters())]


def make_tokenizer(folder: Path, config: Mapping[str, Any], source: Path) -> Any:
    """mlx-lm's tokenizer of the files in ``folder``, which are from ``source``. Raises `FileError`."""
    stops = config.get("eos_token_id", text_config(config).get("eos_token_id"))
    try:
        tokenizer = load_tokenizer(folder, eos_token_ids=stops)
    except (*FILES_AT_FAULT, OSError, ImportError, StrictDataclassError) as error:
        raise FileError(source, f"no usable tokenizer: {shortened(str(error))}") from error
    # without its vocabulary's file transformers makes a tokenizer that knows only the special tokens
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise FileError(source, "no usable tokenizer: it has no vocabulary, as when tokenizer.json is missing")
    return tokenizer
