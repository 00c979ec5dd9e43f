"""Penalties and bias: what is done to logits before anything is chosen from them, row by row on the growing text."""

import math
from collections.abc import Sequence

import mlx.core as mx

from skulk_core.errors import OptionError
from skulk_core.sampling.base import Counts, Place
from skulk_core.sampling.settings import SamplingSettings


class Processors:
    """Logits ``[T, V]`` of rows at one place and the tokens after it → logits of the same shape.

    Bias comes first, then the penalties, as in transformers, vLLM and mlx-lm.
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self._settings = settings
        ids = [token for token, _ in settings.logit_bias]
        self._biased = mx.array(ids, mx.int32) if ids else None
        self._bias = mx.array([bias for _, bias in settings.logit_bias], mx.float32)

    @property
    def do_nothing(self) -> bool:
        """Whether every row comes out as it went in."""
        return self._biased is None and not self._settings.counts_tokens

    def start(self, prompt: Sequence[int], vocab_size: int) -> Place:
        """The place behind ``prompt``. Raises `OptionError` for a bias that a vocabulary of this size cannot take."""
        bias = self._settings.logit_bias
        for token, value in bias:
            if token >= vocab_size:
                raise OptionError("--logit-bias", f"{token}={value}", f"the model's token ids end at {vocab_size - 1}")
        if len({token for token, value in bias if value == -math.inf}) == vocab_size:
            raise OptionError("--logit-bias", f"{bias[0][0]}={bias[0][1]}", "every token of the model is banned")
        counts = None
        if self._settings.counts_tokens:
            counts = Counts.of_prompt(mx.array(list(prompt), mx.int32), vocab_size)
        return Place(len(prompt), counts)

    def __call__(self, logits: mx.array, place: Place, following: mx.array | None = None) -> mx.array:
        """Row ``i`` is the one after ``following[:i]``, token ids ``[T - 1]`` (None: one row)."""
        if self.do_nothing:
            return logits
        logits = logits.astype(mx.float32)
        if self._biased is not None:
            logits = logits.at[:, self._biased].add(self._bias)
        if self._settings.counts_tokens:
            assert place.counts is not None, "a place without counts"
            logits = self._penalised(logits, place.counts, following)
        return logits

    def _penalised(self, logits: mx.array, counts: Counts, following: mx.array | None) -> mx.array:
        settings, in_answer = self._settings, counts.in_answer[None]
        if following is not None and following.shape[0]:
            vocabulary = mx.arange(logits.shape[-1])
            more = (following[:, None] == vocabulary).astype(mx.float32).cumsum(axis=0)
            in_answer = in_answer + mx.concatenate([mx.zeros_like(more[:1]), more])
        occurs = in_answer > 0
        if settings.repetition_penalty != 1:
            # Keskar et al. 2019 (CTRL), with the sign taken into account as transformers does
            penalty = settings.repetition_penalty
            repeated = mx.where(logits > 0, logits / penalty, logits * penalty)
            logits = mx.where(occurs | counts.in_prompt, repeated, logits)
        return logits - settings.presence_penalty * occurs - settings.frequency_penalty * in_answer
