"""Attention of a pass over its cache, with few operations and without MLX's slow `exp` where it is slow."""

from functools import lru_cache

import mlx.core as mx

from skulk_core.numerics.elementwise import exp, power_is_faster

# Query rows scored at once: keys that a block may not see are not scored, and a block's scores stay in the cache.
_BLOCK_ROWS = 128


def attend(
    queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | str | None, scale: float = 1.0
) -> mx.array:
    """Softmax attention ``[1, H, T, D]`` of queries ``[1, H, T, D]`` over ``[1, Hkv, K, D]``.

    ``mask`` is `mx.fast.scaled_dot_product_attention`'s: None, ``"causal"`` (the last T of the K keys are the
    queries' own rows), or an array that is false where nothing may be seen.
    """
    if mx.default_device() == mx.cpu:
        return _attend_in_blocks(queries if scale == 1.0 else queries * scale, keys, values, mask)
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


def heads_first(x: mx.array) -> mx.array:
    """Rows ``[T, H, D]`` as ``[1, H, T, D]``."""
    rows, num_heads, dims = x.shape
    return x.swapaxes(0, 1)[None] if rows > 1 else x.reshape(1, num_heads, 1, dims)


def _attend_in_blocks(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | str | None) -> mx.array:
    """On a CPU MLX's own is made of the same operations as here, and of more."""
    rows, length = queries.shape[2], keys.shape[2]
    keys = keys.swapaxes(-1, -2)
    outputs = []
    for start in range(0, rows, _BLOCK_ROWS):
        end = min(start + _BLOCK_ROWS, rows)
        seen, block_mask = length, None
        if isinstance(mask, str):
            seen = length - rows + end
            block_mask = _causal(end - start, seen) if end - start > 1 else None
        elif mask is not None:
            block_mask = mx.where(mask[..., start:end, :], mx.array(0.0), mx.array(-mx.inf))
        whole = end - start == rows and seen == length
        block = (queries, keys, values) if whole else (queries[:, :, start:end], keys[..., :seen], values[:, :, :seen])
        outputs.append(_block(*block, block_mask))
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)


def _block(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
    """``[1, H, T, D]`` over keys ``[1, Hkv, D, K]`` and values ``[1, Hkv, K, D]``; ``mask`` is added to the scores."""
    _, num_heads, rows, dims = queries.shape
    _, num_kv, _, length = keys.shape
    # the query heads of one K/V head are rows of one product
    scores = queries.reshape(1, num_kv, -1, dims) @ keys
    if mask is not None:
        scores = (scores.reshape(1, num_heads, rows, length) + mask.astype(scores.dtype)).reshape(scores.shape)
    if power_is_faster(scores):
        weights = exp(scores - scores.max(axis=-1, keepdims=True))
        out = (weights @ values) / weights.sum(axis=-1, keepdims=True)
    else:
        out = mx.softmax(scores, axis=-1, precise=True) @ values
    return out.reshape(1, num_heads, rows, -1)


@lru_cache(maxsize=8)
def _causal(rows: int, length: int) -> mx.array:
    """Zero where row i of the last ``rows`` of ``length`` may look, else -inf: ``[rows, length]``.

    Remembered: the layers of a pass use the same.
    """
    own = mx.arange(length - rows, length)[:, None]
    return mx.where(own >= mx.arange(length)[None, :], mx.array(0.0), mx.array(-mx.inf))
