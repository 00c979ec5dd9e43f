"""Qwen3-Next (80B-A3B and its kin): mlx-lm's `qwen3_next`."""

from typing import Any

import mlx.core as mx

from skulk_core.models.gdn_layer import Projections
from skulk_core.models.hybrid import HybridTarget


class Qwen3NextTarget(HybridTarget):
    """As Qwen3.5, with the GDN projections fused and interleaved by key head."""

    @property
    def text_model(self) -> Any:
        return self.model

    def project(self, module: Any, x: mx.array) -> Projections:
        q, k, v, z, b, a = module.fix_query_key_value_ordering(module.in_proj_qkvz(x), module.in_proj_ba(x))
        rows = x.shape[1]
        qkv = mx.concatenate([part.reshape(1, rows, -1) for part in (q, k, v)], axis=-1)
        return qkv, z.reshape(1, rows, -1), b, a
