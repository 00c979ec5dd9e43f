"""The proof of the right rules is worth something only if it fails for wrong ones: each of these is a known mistake."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from toy_sampling import NUM_SEEDS, assert_distributed, decode_all, enumerate_texts, make_toy

from skulk_core.sampling import acceptance
from skulk_core.sampling.base import Acceptance, Draft, Place
from skulk_core.sampling.drawing import draw
from skulk_core.sampling.filters import distribution
from skulk_core.sampling.keys import Purpose, uniforms
from skulk_core.sampling.settings import AcceptRule, SamplingSettings
from skulk_core.sampling.stochastic import StochasticSampler

WARM = SamplingSettings(temperature=1.0)
FILTERED = SamplingSettings(temperature=1.2, top_k=2)
PENALISED = SamplingSettings(temperature=0.8, repetition_penalty=1.4, presence_penalty=0.5)
RULES = pytest.mark.parametrize("rule", AcceptRule)
Dice = Callable[[int, int, int, Purpose, int], mx.array]


def check(
    kind: type[StochasticSampler],
    settings: SamplingSettings,
    drafter: str,
    dice: Dice = uniforms,
    num_batches: int = 3,
) -> None:
    """The test that the shipped sampler passes, at depth 3."""
    toy = make_toy(drafter)
    samplers = [kind(replace(settings, seed=batch * NUM_SEEDS)) for batch in range(num_batches)]
    tokens = np.concatenate([decode_all(sampler, toy, 3, 5, dice).tokens for sampler in samplers])
    assert_distributed(tokens, enumerate_texts(toy, settings, 5), drafter)


def by_position(seed: int, num_tokens: int, offset: int, purpose: Purpose, count: int) -> mx.array:
    """A draft that was refused is drawn again with the same numbers."""
    return uniforms(seed, num_tokens + offset, 0, purpose, count)


def without_offset(seed: int, num_tokens: int, offset: int, purpose: Purpose, count: int) -> mx.array:
    """All drafts of a round share their numbers."""
    return uniforms(seed, num_tokens, 0, purpose, count)


def without_place(seed: int, num_tokens: int, offset: int, purpose: Purpose, count: int) -> mx.array:
    """Every round rolls the same dice."""
    return uniforms(seed, 0, offset, purpose, count)


class OneKey(StochasticSampler):
    """The verdict on each draft rolls the dice that drew it."""

    def _uniforms(self, place: Place, offset: int, purpose: Purpose, count: int) -> mx.array:
        if purpose is not Purpose.VERDICT:
            return super()._uniforms(place, offset, purpose, count)
        return mx.concatenate([super(OneKey, self)._uniforms(place, i, Purpose.DRAFT, 1) for i in range(count)])


class Unfiltered(StochasticSampler):
    """Drafts are drawn from the filtered distribution and judged by the whole one."""

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        token, _ = super().draft(logits, place, drafted)
        return token, distribution(logits, replace(self._settings, top_k=0))


class Likeliest(StochasticSampler):
    """Drafts are the likeliest token and judged as if they had been drawn."""

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        _, probs = super().draft(logits, place, drafted)
        assert probs is not None
        return mx.argmax(probs, axis=-1).astype(mx.int32), probs


class Stale(StochasticSampler):
    """Penalties of a whole pass are those of its first row."""

    def accept(self, logits: mx.array, draft: Draft, place: Place) -> Acceptance:
        whole = self._processors
        self._processors = lambda logits, place, following: whole(logits, place)  # type: ignore[assignment]
        verdict = super().accept(logits, draft, place)
        self._processors = whole
        return verdict


class Unprocessed(StochasticSampler):
    """Only plain tokens are filtered and penalised, not those of a verify pass."""

    def accept(self, logits: mx.array, draft: Draft, place: Place) -> Acceptance:
        if not draft.depth:
            return super().accept(logits, draft, place)
        bare = StochasticSampler(SamplingSettings(temperature=self._settings.temperature, accept=self._settings.accept))
        return bare.accept(logits, draft, place)


class OwnFilters(StochasticSampler):
    """Filters on the target alone: fewer drafts are kept, and yet nothing is wrong."""

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        probs = distribution(logits, replace(self._settings, top_k=0))
        return self._drawn(probs, place, len(drafted), Purpose.DRAFT), probs


def no_residual(p: mx.array, q: mx.array, x: mx.array, *count_scale_drawing: mx.array) -> Acceptance:
    """After a refusal the next token is drawn from the target's whole distribution."""
    num_accepted, _, drawing = count_scale_drawing
    token = draw(mx.take(p, num_accepted, axis=0), drawing)
    drafts = mx.concatenate([x.astype(mx.int32), mx.zeros((1,), mx.int32)])
    return Acceptance(num_accepted, mx.where(mx.arange(p.shape[0]) == num_accepted, token, drafts))


@pytest.mark.parametrize("drafter", ["bad", "uniform"])
def test_numbers_of_the_position_alone(drafter: str) -> None:
    """Harmless token by token, where a draft after the refused one was never looked at; a block looks at all.

    The bias is small: it takes more texts, and the right numbers must pass with as many.
    """
    settings = replace(WARM, accept=AcceptRule.BLOCK)
    check(StochasticSampler, settings, drafter, num_batches=6)
    with pytest.raises(AssertionError, match="standard deviations"):
        check(StochasticSampler, settings, drafter, by_position, num_batches=6)


@RULES
def test_the_right_rule(rule: AcceptRule) -> None:
    """With as many texts, by the same test."""
    for settings in (WARM, FILTERED, PENALISED):
        check(StochasticSampler, replace(settings, accept=rule), "good")


@RULES
@pytest.mark.parametrize("dice", [without_offset, without_place])
def test_numbers_used_twice(rule: AcceptRule, dice: Dice) -> None:
    settings = replace(WARM, accept=rule)
    with pytest.raises(AssertionError, match="standard deviations"):
        check(StochasticSampler, settings, "good", dice)


@RULES
@pytest.mark.parametrize("drafter", ["good", "bad", "uniform", "opposed", "lookup"])
def test_a_missing_residual(rule: AcceptRule, drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "_finish", no_residual)
    settings = replace(WARM, accept=rule)
    with pytest.raises(AssertionError, match="standard deviations"):
        check(StochasticSampler, settings, drafter)


@RULES
def test_a_residual_of_the_other_rule(rule: AcceptRule, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's residual is scaled by its joint ratio, a token's is not."""
    finish = acceptance._finish
    other = 0.5 if rule is AcceptRule.TOKEN else 1.0

    def wrong(p: mx.array, q: mx.array, x: mx.array, n: mx.array, scale: mx.array | None, u: mx.array) -> Acceptance:
        return finish(p, q, x, n, mx.full((p.shape[0],), other), u)

    monkeypatch.setattr(acceptance, "_finish", wrong)
    settings = replace(WARM, accept=rule)
    with pytest.raises(AssertionError, match="standard deviations"):
        check(StochasticSampler, settings, "bad")


@RULES
@pytest.mark.parametrize(
    ("wrong", "settings"),
    [
        (OneKey, WARM),
        (Unfiltered, FILTERED),
        (Likeliest, WARM),
        (Unprocessed, FILTERED),
        (Unprocessed, PENALISED),
        (Stale, PENALISED),
    ],
)
def test_a_draft_that_is_judged_as_another(
    rule: AcceptRule, wrong: type[StochasticSampler], settings: SamplingSettings
) -> None:
    settings = replace(settings, accept=rule)
    with pytest.raises(AssertionError, match=r"standard deviations|cannot give"):
        check(wrong, settings, "good")


@RULES
@pytest.mark.parametrize("drafter", ["good", "opposed"])
def test_what_drafts_are_drawn_from_is_free(rule: AcceptRule, drafter: str) -> None:
    """The other way round: drafts of any distribution do no harm if they are judged by that one."""
    settings = replace(FILTERED, accept=rule)
    check(OwnFilters, settings, drafter)
