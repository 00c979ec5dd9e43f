"""Qwen3-Next (80B-A3B and its kin): mlx-lm's `qwen3_next`."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from skulk_core.models.gdn_layer import Projections
from skulk_core.models.hybrid import HybridTarget
from skulk_core.models.light import linear


class Qwen3NextTarget(HybridTarget):
    """As Qwen3.5, with the GDN projections fused and interleaved by key head."""

    @property
    def text_model(self) -> Any:
        return self.model

    def projection(self, module: Any) -> Callable[[mx.array], Projections]:
        qkvz, ba = linear(module.in_proj_qkvz), linear(module.in_proj_ba)

        def project(x: mx.array) -> Projections:
            rows, mixed = x.shape[0], (qkvz(x)[None], ba(x)[None])
            q, k, v, z, b, a = (part.reshape(rows, -1) for part in module.fix_query_key_value_ordering(*mixed))
            return mx.concatenate([q, k, v], axis=-1), z, b, a

        return project
