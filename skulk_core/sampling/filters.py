"""Logits → the distribution that is drawn from."""

import mlx.core as mx

from skulk_core.numerics.elementwise import softmax
from skulk_core.sampling.settings import SamplingSettings

# Below this temperature rounding of the divided logits would show in the probabilities.
_LEAST_DIRECT = 0.05


def distribution(logits: mx.array, settings: SamplingSettings) -> mx.array:
    """Probabilities ``[T, V]``, float32, of logits ``[T, V]`` at a temperature above 0, after all filters.

    Each filter works on what the one before it left, as transformers' warpers do. Where several tokens are equally
    likely at a filter's edge all of them stay.
    """
    assert settings.temperature > 0, "nothing is drawn at temperature 0"
    logits = logits.astype(mx.float32)
    if settings.temperature < _LEAST_DIRECT:
        # the softmax would do this too, but what it is given was rounded after the division, and not before
        logits = logits - logits.max(axis=-1, keepdims=True)
    logits = logits * (1 / settings.temperature)
    if 0 < settings.top_k < logits.shape[-1]:
        least = mx.topk(logits, settings.top_k, axis=-1).min(axis=-1, keepdims=True)
        logits = mx.where(logits < least, -mx.inf, logits)
    if settings.top_p < 1:
        probs = softmax(logits)
        # from the least likely up, where the small ones are added up exactly; at least the likeliest stays
        rising = mx.sort(probs, axis=-1)
        needed = mx.cumsum(rising, axis=-1) > 1 - settings.top_p
        least = mx.where(needed, rising, rising[:, -1:]).min(axis=-1, keepdims=True)
        logits = mx.where(probs < least, -mx.inf, logits)
    if settings.min_p > 0:
        probs = softmax(logits)
        logits = mx.where(probs < settings.min_p * probs.max(axis=-1, keepdims=True), -mx.inf, logits)
    return softmax(logits)
