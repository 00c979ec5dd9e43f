"""Logits of a vocabulary in clusters, of which only the tokens of the best few are scored (`use_ordered_embeddings`).

As in transformers' `Gemma4AssistantMaskedEmbedder`: every cluster has a centroid, the ``top_k`` clusters whose
centroids score best are looked into, and their tokens are scored by their own embeddings. Tokens of others have -inf
here, where transformers gives them one less than the worst that was scored: neither is ever the best, and a sampler
must not spread its mass over a quarter of a million tokens that nobody scored.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn


class MaskedEmbedding(nn.Module):
    """The clusters' weights, named as released. ``token_ordering`` lists the tokens of each cluster in turn."""

    def __init__(self, hidden_size: int, vocab_size: int, num_centroids: int) -> None:
        super().__init__()
        self.centroids = nn.Linear(hidden_size, num_centroids, bias=False)
        self.token_ordering = mx.zeros((vocab_size,), mx.int32)


class ClusteredLogits:
    """Logits ``[T, V]`` of normed rows ``[T, h]``.

    ``embedding`` has its rows in the order of ``token_ordering``, so that a cluster is one matrix of a stack and its
    product reads nothing else: no row is gathered.
    """

    def __init__(self, module: MaskedEmbedding, embedding: Any, top_k: int) -> None:
        self._centroids, self._top_k = module.centroids, top_k
        num_clusters = module.centroids.weight.shape[0]
        self._vocab_size = module.token_ordering.shape[0]
        self._tokens = module.token_ordering.astype(mx.int32).reshape(num_clusters, -1)
        weights = {name: array.reshape(num_clusters, -1, array.shape[-1]) for name, array in embedding.items()}
        self._weight = weights["weight"]
        self._packing: dict[str, Any] | None = None
        if "scales" in weights:
            settings = {name: getattr(embedding, name) for name in ("group_size", "bits", "mode")}
            self._packing = {"scales": weights["scales"], "biases": weights.get("biases"), **settings}

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.shape[0]
        best = mx.argpartition(-self._centroids(x), self._top_k - 1, axis=-1)[:, : self._top_k]
        scored = self._scored(x[:, None, None, :], best).reshape(rows, -1)
        tokens = mx.take(self._tokens, best, axis=0).reshape(rows, -1)
        none = mx.full((rows, self._vocab_size), -mx.inf, scored.dtype)
        return mx.put_along_axis(none, tokens, scored, axis=-1)

    def _scored(self, x: mx.array, best: mx.array) -> mx.array:
        """``[T, top_k, 1, tokens of a cluster]`` of ``x`` ``[T, 1, 1, h]``."""
        if self._packing is None and self._weight.dtype != mx.float32 and mx.default_device() == mx.cpu:
            # not in MLX's gather_mm there
            return x @ mx.take(self._weight, best, axis=0).swapaxes(-1, -2)
        if self._packing is None:
            return mx.gather_mm(x, self._weight.swapaxes(-1, -2), rhs_indices=best)
        return mx.gather_qmm(x, self._weight, rhs_indices=best, transpose=True, **self._packing)
