"""Qwen3.5, 3.6 and 3.8 (dense and MoE, and the text part of multimodal checkpoints): mlx-lm's `qwen3_5`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx

from skulk_core.models.gdn_layer import Projections
from skulk_core.models.hybrid import HybridTarget
from skulk_core.models.light import linear


class Qwen35Target(HybridTarget):
    """Gated delta nets with full attention every ``full_attention_interval`` layers, under `language_model`."""

    @property
    def text_model(self) -> Any:
        return self.model.language_model

    def take_share(self, rank: int, size: int, *, decides: bool) -> None:
        # mlx-lm divides an LM head too, and asks every rank for logits: ours stays whole, with the rank that decides
        text = self.text_model
        args, text.args = text.args, replace(text.args, tie_word_embeddings=True)
        try:
            super().take_share(rank, size, decides=decides)
        finally:
            text.args = args

    def projection(self, module: Any) -> Callable[[mx.array], Projections]:
        qkv, z = linear(module.in_proj_qkv), linear(module.in_proj_z)
        b, a = linear(module.in_proj_b), linear(module.in_proj_a)
        return lambda x: (qkv(x), z(x), b(x), a(x))
