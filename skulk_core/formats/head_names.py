"""How draft heads name their tensors, wherever they are met: in a sidecar, or among a checkpoint's own tensors."""

from collections.abc import Sequence

# What multimodal checkpoints put around the text model's names.
_WRAPPERS = ("model.", "language_model.", "model.")
_HEAD_PREFIX = "mtp."

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


def is_assistant(model_type: object) -> bool:
    """Whether a checkpoint of this type, as its config.json says, is a draft head for another."""
    return model_type in _ASSISTANT_TYPES


def layout_of(names: Sequence[str]) -> str | None:
    """The layout that a head's tensors follow, None if no known one."""
    local = [local_name(name) for name in names]
    return next((layout for layout, marks in _MARKS.items() if any(name.startswith(marks) for name in local)), None)
