"""Drawing a token from a distribution."""

import mlx.core as mx

# Random numbers that one draw takes.
NUM_UNIFORMS = 2
# Tokens that share one entry of the first cumulative sum; about the root of the largest vocabularies.
_BLOCK = 512


def draw(weights: mx.array, uniforms: mx.array) -> mx.array:
    """The token ``[]`` of weights ``[V]``, not all 0, that ``uniforms`` ``[2]`` in [0, 1) fall on; one of 0 never.

    By the inverse of the cumulative sum, in two steps: a block of tokens, then one in it. In one step the float32 sum
    over 150,000 tokens loses unlikely ones: total variation up to 0.003 from the exact distribution, against 0.00002
    in two. The Gumbel way takes V random numbers and five times as long.
    """
    vocab_size = weights.shape[0]
    num_blocks = -(-vocab_size // _BLOCK)
    if num_blocks == 1:
        return _fallen_on(weights, uniforms[1])
    blocks = mx.pad(weights, (0, num_blocks * _BLOCK - vocab_size)).reshape(num_blocks, _BLOCK)
    block = _fallen_on(blocks.sum(axis=-1), uniforms[0])
    return block * _BLOCK + _fallen_on(mx.take(blocks, block, axis=0), uniforms[1])


def _fallen_on(weights: mx.array, uniform: mx.array) -> mx.array:
    """Index ``[]`` of the first cumulative weight above ``uniform`` of the whole."""
    cumulative = mx.cumsum(weights)
    # a float32 below 1 times the whole is below the whole, also after rounding: some entry is always above
    return mx.argmax(cumulative > uniform * cumulative[-1]).astype(mx.int32)
