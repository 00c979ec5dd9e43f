"""Qwen3.5, 3.6 and 3.8 (dense and MoE, and the text part of multimodal checkpoints): mlx-lm's `qwen3_5`."""

from typing import Any

import mlx.core as mx

from skulk_core.models.gdn_layer import Projections
from skulk_core.models.hybrid import HybridTarget


class Qwen35Target(HybridTarget):
    """Gated delta nets with full attention every ``full_attention_interval`` layers, under `language_model`."""

    @property
    def text_model(self) -> Any:
        return self.model.language_model

    def project(self, module: Any, x: mx.array) -> Projections:
        return module.in_proj_qkv(x), module.in_proj_z(x), module.in_proj_b(x), module.in_proj_a(x)
