"""How draft heads name their tensors, wherever they are met: in a sidecar, or among a checkpoint's own tensors."""

import re
from collections.abc import Collection, Iterable, Sequence

from skulk_core.formats.sidecar import SIDECAR_FILE

# What multimodal checkpoints put around the text model's names.
_WRAPPERS = ("model.", "language_model.", "model.")
_HEAD_PREFIX = "mtp."
# a name that belongs to the head of any checkpoint, to ask with whether heads are wanted
ANY_HEAD_TENSOR = "mtp.fc.weight"
# how some converters call the shards of a head that they leave out of the index
_HEAD_SHARD = re.compile(r"model-mtp[^/]*\.safetensors")

# layout -> beginnings of names that heads in this layout have and no others; one is enough, or a missing tensor could
# not be told from a foreign head
_MARKS = {
    "qwen_mtp": ("mtp.fc.", "mtp.pre_fc_norm_", "mtp.layers.0.self_attn."),
    "gemma4_assistant": ("pre_projection.", "post_projection."),
}
# model types of checkpoints that are nothing but a draft head for another checkpoint
_ASSISTANT_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")


def local_name(name: str) -> str:
    """``name`` without the wrappers of a multimodal checkpoint."""
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def belongs_to_head(name: str) -> bool:
    """Whether a checkpoint's tensor is part of a draft head and not of the trunk."""
    return local_name(name).startswith(_HEAD_PREFIX)


def files_of_head(names: Iterable[str], own: Collection[str]) -> tuple[str, ...]:
    """The files beside the model's ``own`` that hold a draft head by their name: a sidecar, else shards of a head.

    ``names`` are those of all files in the folder, or of the repository.
    """
    beside = sorted(name for name in names if name not in own)
    if SIDECAR_FILE in beside:
        return (SIDECAR_FILE,)
    return tuple(name for name in beside if _HEAD_SHARD.fullmatch(name))


def is_assistant(model_type: object) -> bool:
    """Whether a checkpoint of this type, as its config.json says, is a draft head for another."""
    return model_type in _ASSISTANT_TYPES


def layout_of(names: Sequence[str]) -> str | None:
    """The layout that a head's tensors follow, None if no known one."""
    local = [local_name(name) for name in names]
    return next((layout for layout, marks in _MARKS.items() if any(name.startswith(marks) for name in local)), None)
