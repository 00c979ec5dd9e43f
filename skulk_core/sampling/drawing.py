"""Drawing a token from a distribution."""

import mlx.core as mx

# Weights that are summed in one go: the float32 sum of so many loses less than 0.0002 of total variation.
_MOST_AT_ONCE = 8192
# Beyond that, tokens that share one entry of the first cumulative sum; about the root of the largest vocabularies.
_BLOCK = 512


def num_uniforms(vocab_size: int) -> int:
    """Random numbers that one draw from so many tokens takes."""
    return 1 if vocab_size <= _MOST_AT_ONCE else 2


def draw(weights: mx.array, uniforms: mx.array) -> mx.array:
    """The token ``[]`` of weights ``[V]`` that ``uniforms`` fall on; ``[1]`` of ``[1, V]``.

    ``uniforms`` ``[num_uniforms(V)]`` are in [0, 1). Not all weights are 0; a token of weight 0 never comes. By the
    inverse of the cumulative sum, of a large vocabulary in two steps: a block of tokens, then one in it. In one step
    the float32 sum over 150,000 tokens loses unlikely ones: total variation up to 0.003 from the exact distribution,
    against 0.00002 in two. The Gumbel way takes V random numbers and five times as long.
    """
    vocab_size = weights.shape[-1]
    if vocab_size <= _MOST_AT_ONCE:
        return _fallen_on(weights, uniforms)
    num_blocks = -(-vocab_size // _BLOCK)
    first, second = mx.split(uniforms, 2)
    blocks = mx.pad(weights.reshape(-1), (0, num_blocks * _BLOCK - vocab_size)).reshape(num_blocks, _BLOCK)
    block = _fallen_on(blocks.sum(axis=-1), first)
    token = block * _BLOCK + _fallen_on(mx.take(blocks, block, axis=0), second)
    return token.reshape(weights.shape[:-1])


def _fallen_on(weights: mx.array, uniform: mx.array) -> mx.array:
    """Index of the first cumulative weight above ``uniform`` ``[1]`` of the whole, along the last axis."""
    cumulative = mx.cumsum(weights, axis=-1)
    # a float32 below 1 times the whole is below the whole, also after rounding: some entry is always above
    return mx.argmax(cumulative > uniform * cumulative[..., -1:], axis=-1).astype(mx.int32)
