"""What the configuration of a Gemma 4 assistant says, and whether it was made for a target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_lm.models.gemma4_text import ModelArgs

from skulk_core.errors import SidecarError
from skulk_core.heads.files import HeadFiles
from skulk_core.models.base import Target
from skulk_core.models.gemma4 import FULL, SLIDING, Gemma4Target
from skulk_core.models.gemma4_config import config_changes

# transformers' defaults of `Gemma4AssistantConfig` and `Gemma4UnifiedAssistantConfig`, which a save leaves out
_DEFAULTS: Mapping[str, Any] = {
    "backbone_hidden_size": 1536,
    "use_ordered_embeddings": False,
    "num_centroids": 2048,
    "centroid_intermediate_top_k": 32,
}
_UNIFIED_BACKBONE = 3840


@dataclass(frozen=True)
class AssistantSpec:
    """Sizes of an assistant. ``args`` are mlx-lm's of its layers; ``num_centroids`` is 0 for plain embeddings."""

    args: ModelArgs
    backbone_hidden_size: int
    num_centroids: int
    centroids_looked_into: int

    @property
    def sliding_rows(self) -> int:
        """Rows that a query of a sliding layer sees: transformers' mask keeps distances up to the assistant's window.

        From the last committed row on, and with both ends.
        """
        return int(self.args.sliding_window) + 1


def read_spec(files: HeadFiles) -> AssistantSpec:
    """The sizes in an assistant's `config.json`. Raises `SidecarError` naming the key that makes no sense."""
    if files.config is None:
        reason = "holds an assistant's weights alone; give its folder, which has the config.json that says their sizes"
        raise SidecarError(files.origin, reason)
    said = {**_DEFAULTS, **files.config}
    if "backbone_hidden_size" not in files.config and "unified" in str(files.config["model_type"]):
        said["backbone_hidden_size"] = _UNIFIED_BACKBONE
    sizes = [name for name in _DEFAULTS if name != "use_ordered_embeddings"]
    for name in sizes:
        if not isinstance(said[name], int) or isinstance(said[name], bool) or said[name] < 1:
            raise SidecarError(files.origin, f"config.json: {name} is {said[name]!r}, not a size")
    args = _text_args(files)
    centroids = said["num_centroids"] if said["use_ordered_embeddings"] else 0
    if centroids and (args.vocab_size % centroids or said["centroid_intermediate_top_k"] > centroids):
        reason = f"config.json: {centroids} centroids cannot share {args.vocab_size} tokens"
        raise SidecarError(files.origin, reason)
    return AssistantSpec(args, said["backbone_hidden_size"], centroids, said["centroid_intermediate_top_k"])


def require_fit(spec: AssistantSpec, target: Target, files: HeadFiles) -> Gemma4Target:
    """``target``, if the assistant can read its rows, keys and values. Raises `SidecarError` with both sizes."""
    if not isinstance(target, Gemma4Target):
        reason = "reads keys and values of a Gemma 4 model, which this one is not: an assistant of another model"
        raise SidecarError(files.origin, reason)
    if spec.backbone_hidden_size != target.hidden_size:
        raise _unlike(files, "hidden_size", spec.backbone_hidden_size, target.hidden_size)
    kinds = set(spec.args.layer_types)
    if missing := sorted(kinds - target.lent_kinds):
        reason = f"reads keys and values of {missing[0]} layers, of which this model has none"
        raise SidecarError(files.origin, f"{reason}: an assistant of another model")
    if SLIDING in kinds and spec.args.sliding_window > target.args.sliding_window:
        raise _unlike(files, "sliding_window", spec.args.sliding_window, target.args.sliding_window)
    for kind in sorted(kinds):
        theirs, ours = _heads(spec.args, kind), _heads(target.args, kind)
        if theirs.dims != ours.dims:
            raise _unlike(files, f"{kind} heads of size", theirs.dims, ours.dims)
        if spec.args.num_attention_heads % ours.count:
            reason = f"has {spec.args.num_attention_heads} query heads for {kind}, this model {ours.count} of K/V"
            raise SidecarError(files.origin, f"{reason}: an assistant of another model")
    return target


@dataclass(frozen=True)
class _Heads:
    dims: int
    count: int


def _heads(args: Any, kind: str) -> _Heads:
    """Size and number of the K/V heads of layers of ``kind``, as mlx-lm's attention works them out."""
    full = kind == FULL
    dims = args.global_head_dim if full and args.global_head_dim else args.head_dim
    shared = full and args.attention_k_eq_v and args.num_global_key_value_heads is not None
    return _Heads(int(dims), int(args.num_global_key_value_heads if shared else args.num_key_value_heads))


def _unlike(files: HeadFiles, what: str, theirs: int, ours: int) -> SidecarError:
    return SidecarError(
        files.origin, f"made for a model with {what} {theirs}; this one has {ours}: an assistant of another model"
    )


def _text_args(files: HeadFiles) -> ModelArgs:
    config = files.config
    assert config is not None
    if not isinstance(config.get("text_config"), Mapping):
        raise SidecarError(files.origin, "config.json: has no text_config")
    try:
        text = config_changes(config)["text_config"]
        # its layers make no keys and values, whatever a save says of how many share them
        args = ModelArgs.from_dict({**text, "num_kv_shared_layers": text["num_hidden_layers"]})
        kinds = args.layer_types
        assert kinds is not None
        if len(kinds) != args.num_hidden_layers or not set(kinds) <= {FULL, SLIDING}:
            raise ValueError(f"layer_types {kinds} of {args.num_hidden_layers} layers")
    except (LookupError, TypeError, ValueError) as error:
        raise SidecarError(files.origin, f"config.json: {error}") from error
    if args.enable_moe_block or args.hidden_size_per_layer_input:
        raise SidecarError(files.origin, "config.json: experts or layer inputs, which no assistant is known to have")
    return args
