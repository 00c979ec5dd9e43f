"""How much of a sampled draft stands, so that the text is distributed as if it had been sampled without one.

``p`` ``[d + 1, V]`` are the target's distributions, row ``i`` after the first ``i`` drafts; ``q`` ``[d, V]`` those the
drafts ``x`` ``[d]`` were drawn from, each after the ones before it; none of them has probability 0 there. ``judging``
``[d]`` and ``drawing`` ``[num_uniforms(V)]`` are in [0, 1), the latter for the next token.
"""

from functools import lru_cache

import mlx.core as mx

from skulk_core.sampling.base import Acceptance
from skulk_core.sampling.drawing import draw


def accept_tokens(p: mx.array, q: mx.array, x: mx.array, judging: mx.array, drawing: mx.array) -> Acceptance:
    """Token by token: draft ``i`` stands with probability ``min(1, p / q)``, the first that falls ends it.

    The next token comes from ``max(0, p - q)``, or from ``p`` after the last draft (Leviathan et al. 2023, Chen et al.
    2023).
    """
    stands = judging < _ratios(p, q, x)
    num_accepted = mx.cumprod(stands.astype(mx.int32)).sum()
    return _finish(p, q, x, num_accepted, None, drawing)


def accept_block(p: mx.array, q: mx.array, x: mx.array, judging: mx.array, drawing: mx.array) -> Acceptance:
    """As a block: the longest prefix that its joint ratio allows; never shorter on average than token by token.

    With ``P_i = min(1, P_{i-1} p_i(x_i) / q_i(x_i))``, ``P_0 = 1``, prefix ``i < d`` stands with probability
    ``R_i / (R_i + 1 - P_i)``, ``R_i = sum max(0, P_i p_{i+1} - q_{i+1})``, and all ``d`` with ``P_d``; the longest that
    stands is taken and the next token comes from ``max(0, P_i p_{i+1} - q_{i+1})`` (Sun et al. 2024, Block Verification
    Accelerates Speculative Decoding).
    """
    depth = x.shape[0]
    joint = [mx.ones((1,))]
    for ratio in mx.split(_ratios(p, q, x), depth):
        joint.append(mx.minimum(joint[-1] * ratio if len(joint) > 1 else ratio, 1.0))
    scale = mx.concatenate(joint)
    threshold = joint[-1]
    if depth > 1:
        within = scale[1:depth]
        left = mx.maximum(within[:, None] * p[1:depth] - q[1:], 0.0).sum(axis=-1)
        # 0 / 0 where a prefix is certain and nothing is left of its residual: then a longer one stands
        threshold = mx.concatenate([left / mx.maximum(left + (1.0 - within), 1e-30), threshold])
    lengths = (judging < threshold) * _one_to(depth)
    return _finish(p, q, x, lengths.max(), scale, drawing)


def _finish(
    p: mx.array, q: mx.array, x: mx.array, num_accepted: mx.array, scale: mx.array | None, drawing: mx.array
) -> Acceptance:
    """The next token from what is left of row ``num_accepted``, behind the accepted drafts.

    ``scale`` ``[d + 1]`` are factors of the rows of ``p``; None: all 1.
    """
    depth = x.shape[0]
    row = mx.take(p, num_accepted, axis=0)
    ahead = mx.take(q, mx.minimum(num_accepted, depth - 1), axis=0)
    left = mx.maximum((row if scale is None else mx.take(scale, num_accepted) * row) - ahead, 0.0)
    # after the last draft nothing is taken away; nor is there anything left where rounding refused a certain draft
    whole = (num_accepted == depth) | (left.sum() <= 0)
    token = draw(mx.where(whole, row, left), drawing)
    drafts = mx.concatenate([x.astype(mx.int32), token[None]])
    return Acceptance(num_accepted, mx.where(_one_to(depth + 1) == num_accepted + 1, token, drafts))


def _ratios(p: mx.array, q: mx.array, x: mx.array) -> mx.array:
    """``p / q`` ``[d]`` at each draft."""
    at = x[:, None]
    return (mx.take_along_axis(p[: x.shape[0]], at, axis=-1) / mx.take_along_axis(q, at, axis=-1)).squeeze(-1)


@lru_cache(maxsize=16)
def _one_to(count: int) -> mx.array:
    """1 to ``count``."""
    numbers = mx.arange(1, count + 1)
    mx.async_eval(numbers)
    return numbers
