"""How much of a sampled draft stands, so that the text is distributed as if it had been sampled without one.

``p`` ``[d + 1, V]`` are the target's distributions, row ``i`` after the first ``i`` drafts; ``q`` ``[d, V]`` those the
drafts ``x`` ``[d]`` were drawn from, each after the ones before it.
"""

import mlx.core as mx

from skulk_core.sampling.base import Acceptance
from skulk_core.sampling.drawing import draw


def accept_tokens(p: mx.array, q: mx.array, x: mx.array, uniforms: mx.array) -> Acceptance:
    """Token by token: draft ``i`` stands with probability ``min(1, p / q)``, the first that falls ends it.

    The next token comes from ``max(0, p - q)``, or from ``p`` after the last draft (Leviathan et al. 2023, Chen et al.
    2023). ``uniforms`` ``[d + 2]`` in [0, 1), the last two for the next token.
    """
    depth = x.shape[0]
    stands = uniforms[:depth] * _at(q, x) < _at(p[:depth], x)
    num_accepted = mx.cumprod(stands.astype(mx.int32)).sum()
    scale = mx.ones((depth + 1,), mx.float32)
    return _finish(p, q, x, num_accepted, scale, uniforms[depth:])


def accept_block(p: mx.array, q: mx.array, x: mx.array, uniforms: mx.array) -> Acceptance:
    """As a block: the longest prefix that its joint ratio allows; never shorter on average than token by token.

    With ``P_i = min(1, P_{i-1} p_i(x_i) / q_i(x_i))``, ``P_0 = 1``, prefix ``i < d`` stands with probability
    ``R_i / (R_i + 1 - P_i)``, ``R_i = sum max(0, P_i p_{i+1} - q_{i+1})``, and all ``d`` with ``P_d``; the longest that
    stands is taken and the next token comes from ``max(0, P_i p_{i+1} - q_{i+1})`` (Sun et al. 2024, Block Verification
    Accelerates Speculative Decoding). ``uniforms`` ``[d + 2]`` in [0, 1), the last two for the next token.
    """
    depth = x.shape[0]
    p_at, q_at = _at(p[:depth], x), _at(q, x)
    joint, products = mx.array(1.0), []
    for i in range(depth):
        joint = mx.minimum(joint * p_at[i] / q_at[i], 1.0)
        products.append(joint)
    scale = mx.stack([mx.array(1.0), *products])
    left = mx.maximum(scale[1:depth, None] * p[1:depth] - q[1:], 0.0).sum(axis=-1)
    # 0 / 0 where a prefix is certain and nothing is left of its residual: then a longer one stands
    short = left / mx.maximum(left + 1.0 - scale[1:depth], 1e-30)
    threshold = mx.concatenate([short, scale[depth:]])
    lengths = mx.where(uniforms[:depth] < threshold, mx.arange(1, depth + 1), 0)
    return _finish(p, q, x, lengths.max(), scale, uniforms[depth:])


def _finish(
    p: mx.array, q: mx.array, x: mx.array, num_accepted: mx.array, scale: mx.array, uniforms: mx.array
) -> Acceptance:
    """The next token from what is left of row ``num_accepted``, behind the accepted drafts."""
    depth = x.shape[0]
    ahead = mx.concatenate([q, mx.zeros_like(p[:1])])
    row = mx.take(p, num_accepted, axis=0)
    left = mx.maximum(mx.take(scale, num_accepted) * row - mx.take(ahead, num_accepted, axis=0), 0.0)
    # after the last draft nothing is taken away; nor is there anything left where rounding refused a certain draft
    whole = (num_accepted == depth) | (left.sum() <= 0)
    token = draw(mx.where(whole, row, left), uniforms)
    drafts = mx.concatenate([x.astype(mx.int32), mx.zeros((1,), mx.int32)])
    return Acceptance(num_accepted, mx.where(mx.arange(depth + 1) == num_accepted, token, drafts))


def _at(probs: mx.array, tokens: mx.array) -> mx.array:
    """The probability ``[d]`` of each token ``[d]`` in its row of ``[d, V]``."""
    return mx.take_along_axis(probs, tokens.astype(mx.int32)[:, None], axis=-1).squeeze(-1)
