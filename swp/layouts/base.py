"""What a layout says: how a family names its head's tensors and wires them. Data; one file for each family.

Names here are local: without the wrappers `model.` and `language_model.` of a checkpoint. A head has one or more
depths; what stands behind the depth's prefix is the tensor's `place`, for example `self_attn.q_proj.weight`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skulk_core.formats.head_names import local_name
from skulk_core.types import Conventions

# Kept in float32 whatever the family: rounding them moves routing decisions and decay rates.
_FLOAT32 = (r"(.*\.)?e_score_correction_bias", r"(.*\.)?A_log", r"(.*\.)?(router|expert)_bias", r"(.*\.)?hc_\w+")

_SCALE = re.compile(
    r"[._](weight_scale_inv|weight_scale_2|weight_global_scale|weight_scale|scale_inv|scale|weight_shape"
    r"|input_scale|input_global_scale|output_scale|k_scale|v_scale|zero_point|weight_zero_point|weight_packed)$"
)


@dataclass(frozen=True)
class Place:
    """Where a head's tensor belongs: its depth, from 0, and its name behind the depth's prefix."""

    depth: int
    name: str


@dataclass(frozen=True)
class Layout:
    """One layout.

    `prefixes` are regular expressions for the beginnings of the head's local names; a group `i` in one is the number of
    the depth, counted from the trunk's layers if `after_trunk`. All other expressions are for whole places: `required`
    are in every depth; `known` are all that may be; `foreign` maps a place to the name of another head that is released
    under the same prefix. `embedding` and `lm_head` may be copies of the trunk's `trunk_embedding` and `trunk_lm_head`,
    which are local names. `float32` are kept in float32 beside those of every family, `integers` are tables copied as
    they are. `promises` are keys of config.json that hold the number of depths.
    """

    name: str
    model_types: tuple[str, ...]
    prefixes: tuple[str, ...]
    required: tuple[str, ...]
    known: tuple[str, ...]
    conventions: Conventions
    promises: tuple[str, ...] = ("num_nextn_predict_layers",)
    after_trunk: bool = False
    foreign: Mapping[str, str] | None = None
    embedding: tuple[str, ...] = ()
    lm_head: tuple[str, ...] = ()
    trunk_embedding: str = "embed_tokens.weight"
    trunk_lm_head: str = "lm_head.weight"
    float32: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()

    def place(self, tensor: str, num_trunk_layers: int) -> Place | None:
        """Where the tensor belongs in the head; None for one of the trunk."""
        local = local_name(tensor)
        for prefix in self.prefixes:
            match = re.match(prefix, local)
            if match is None:
                continue
            number = match.groupdict().get("i")
            depth = 0 if number is None else int(number) - (num_trunk_layers if self.after_trunk else 0)
            if depth >= 0:
                # what an index inside the prefix took out of the name is put back
                kept = match.groupdict().get("kept") or ""
                return Place(depth, kept + local[match.end() :])
        return None

    def is_float32(self, place: str) -> bool:
        """Whether the tensor is shipped in float32 if it is stored so."""
        return _any_matches((*_FLOAT32, *self.float32), place)

    @property
    def counts_depths(self) -> bool:
        """Whether the names of its tensors tell one depth from another."""
        return any("(?P<i>" in prefix for prefix in self.prefixes)

    def foreign_head(self, place: str) -> str:
        """The name of the other head that such a tensor is part of; empty if of none."""
        return next((name for one, name in (self.foreign or {}).items() if re.fullmatch(one, place)), "")

    def trunk_copies(self, place: str) -> tuple[str, ...]:
        """Local names of the trunk's tensors that the tensor may be a copy of, the likeliest first."""
        if _any_matches(self.embedding, place):
            return (self.trunk_embedding,)
        # where embedding and LM head are tied, the trunk has only the one
        return (self.trunk_lm_head, self.trunk_embedding) if _any_matches(self.lm_head, place) else ()

    def is_integer_table(self, place: str) -> bool:
        return _any_matches(self.integers, place)

    def knows(self, place: str) -> bool:
        """Whether such a tensor, or the weight that such a scale belongs to, may be part of the head."""
        if _any_matches(self.known, place):
            return True
        scale = _SCALE.search(place)
        if scale is None:
            return False
        stem = place[: scale.start()]
        return _any_matches(self.known, stem) or _any_matches(self.known, f"{stem}.weight")

    def promised(self, config: Mapping[str, Any]) -> int:
        """The number of depths that config.json promises; 0 if it promises none."""
        values = (config.get(key) for key in self.promises)
        return next((value for value in values if type(value) is int and value > 0), 0)


def requirement_missing(layout: Layout, depths: Mapping[int, tuple[str, ...]]) -> str:
    """A place that the layout requires and a depth lacks; empty if all are there. `depths` holds places by depth."""
    for pattern in layout.required:
        for places in depths.values():
            # some quantisers rename the weights that they pack
            if not any(re.fullmatch(f"{pattern}(_packed)?", place) for place in places):
                return pattern.replace("\\", "")
    return ""


def _any_matches(patterns: tuple[str, ...], place: str) -> bool:
    return any(re.fullmatch(pattern, place) for pattern in patterns)
