"""Attention of a pass over its cache: MLX's own where it has a kernel, a cheaper formulation on x86 CPUs."""

from functools import partial

import mlx.core as mx

from skulk_core.models.elementwise import exp, power_is_faster
from skulk_core.models.parallel import in_parallel

# Query rows scored at once: keys that a block may not see are not scored, and a block's scores stay in the cache.
_BLOCK_ROWS = 128


def attend(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | str | None) -> mx.array:
    """Softmax attention ``[1, H, T, D]`` of queries ``[1, H, T, D]`` over ``[1, Hkv, K, D]``.

    ``mask`` is `mx.fast.scaled_dot_product_attention`'s: None, ``"causal"`` (the last T of the K keys are the
    queries' own rows), or an array that is false where nothing may be seen.
    """
    if queries.dtype == mx.float32 and power_is_faster():
        return _attend_by_power(queries, keys, values, scale, mask)
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


def _attend_by_power(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | str | None
) -> mx.array:
    """The same with `elementwise.exp`, block by block; MLX's fallback spends its time in `exp`."""
    rows, length = queries.shape[2], keys.shape[2]
    queries = queries * scale
    blocks = []
    for start in range(0, rows, _BLOCK_ROWS):
        end = min(start + _BLOCK_ROWS, rows)
        seen, block_mask = length, None
        if isinstance(mask, str):
            seen = length - rows + end
            block_mask = _causal(end - start, seen) if seen > 1 else None
        elif mask is not None:
            block_mask = mx.where(mask[..., start:end, :], mx.array(0.0), mx.array(-mx.inf))
        blocks.append(partial(_block, queries[:, :, start:end], keys[:, :, :seen], values[:, :, :seen], block_mask))
    outputs = in_parallel(blocks)
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)


def _block(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
    _, num_heads, rows, dims = queries.shape
    num_kv, length = keys.shape[1:3]
    # the query heads of one K/V head are rows of one product
    scores = queries.reshape(1, num_kv, -1, dims) @ keys.swapaxes(-1, -2)
    if mask is not None:
        scores = (scores.reshape(1, num_heads, rows, length) + mask).reshape(scores.shape)
    weights = exp(scores - scores.max(axis=-1, keepdims=True))
    out: mx.array = (weights @ values) / weights.sum(axis=-1, keepdims=True)
    return out.reshape(1, num_heads, rows, -1)


def _causal(rows: int, length: int) -> mx.array:
    """Zero where row i of the last ``rows`` of ``length`` may look, else -inf: ``[rows, length]``."""
    own = mx.arange(length - rows, length)[:, None]
    return mx.where(own >= mx.arange(length)[None, :], mx.array(0.0), mx.array(-mx.inf))
