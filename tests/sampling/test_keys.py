"""Runs repeat by their seed; no two things that are drawn share their dice."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from toy_sampling import decode_all, decode_one, make_toy

from skulk_core.sampling.base import Place
from skulk_core.sampling.keys import Purpose, uniforms
from skulk_core.sampling.settings import MAX_SEED, AcceptRule, SamplingSettings
from skulk_core.sampling.stochastic import StochasticSampler, make_sampler

WARM = SamplingSettings(temperature=1.0)


def test_nothing_shares_its_numbers() -> None:
    """Of neighbouring seeds, places, offsets and purposes, and of seeds at the end of their range: each rolls anew."""
    seeds = [*range(20), 2**32, 2**32 + 1, 2**63, MAX_SEED, MAX_SEED - 1]
    asked = [(s, n, o, p, 4) for s in seeds for n in range(40) for o in range(8) for p in Purpose]
    assert len({tuple(uniforms(*each).tolist()) for each in asked}) == len(asked) == 24_000


def test_numbers_do_not_depend_on_how_many_are_asked_for() -> None:
    """Or the same seed would draw another token where another depth was chosen."""
    for count in (1, 2, 5, 17):
        assert uniforms(3, 7, 1, Purpose.DRAFT, count).tolist() == uniforms(3, 7, 1, Purpose.DRAFT, 40).tolist()[:count]


def test_numbers_do_not_change_between_versions() -> None:
    """A seed that a user wrote down must give the same text later: these values are part of the program's promise."""
    assert [round(x * 2**24) for x in uniforms(0, 5, 0, Purpose.DRAFT, 3).tolist()] == [12191639, 16682853, 14610478]
    assert [round(x * 2**24) for x in uniforms(7, 1000, 3, Purpose.TOKEN, 2).tolist()] == [8840438, 5889562]


def test_numbers_are_even_and_below_1() -> None:
    """400,000 of them in 100 classes, chi-square; 1 itself would fall on no token."""
    numbers = np.array(uniforms(1, 2, 3, Purpose.VERDICT, 400_000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    classes = np.bincount((numbers * 100).astype(int), minlength=100)
    assert ((classes - 4000) ** 2).sum() / 4000 < 171  # 99 degrees, one in 10^5
    assert len(np.unique(numbers)) > 390_000


@pytest.mark.parametrize("rule", AcceptRule)
def test_a_seed_repeats_and_others_differ(rule: AcceptRule) -> None:
    toy = make_toy("good")
    texts = {}
    for seed in (0, 1, 2, 2**32, MAX_SEED):
        settings = replace(WARM, seed=seed, accept=rule)
        first, again = (decode_one(make_sampler(settings), toy, 3, 40) for _ in range(2))
        assert first == again
        texts[seed] = tuple(first)
    assert len(set(texts.values())) == len(texts)


def test_seed_0_is_a_seed_like_any() -> None:
    """Not "none": whatever MLX has drawn before must not matter to it."""
    toy, sampler = make_toy("good"), make_sampler(replace(WARM, seed=0))
    mx.random.seed(1)
    first = decode_one(sampler, toy, 2, 30)
    mx.random.seed(2)
    mx.eval(mx.random.uniform(shape=(10,)))
    assert decode_one(sampler, toy, 2, 30) == first


def test_seeds_are_unrelated() -> None:
    """Neighbouring seeds must not write alike: the shares of equal tokens at equal places are those of chance."""
    tokens = decode_all(make_sampler(WARM), make_toy("good"), 2, 4).tokens
    for place in range(4):
        here = tokens[:, place]
        shares = np.bincount(here, minlength=3) / len(here)
        equal, expected = (here[1:] == here[:-1]).mean(), (shares**2).sum()
        assert equal == pytest.approx(expected, abs=4 * (expected * (1 - expected) / len(here)) ** 0.5)


def test_drafts_and_verdicts_of_a_round_are_unrelated() -> None:
    """The numbers that a round uses, over many rounds: no two of them go together."""
    sampler = StochasticSampler(WARM)
    rows = []
    for num_tokens in range(1000):
        place = Place(num_tokens)
        drafts = [sampler._uniforms(place, offset, Purpose.DRAFT, 2) for offset in range(4)]
        verdict = [sampler._uniforms(place, 0, Purpose.VERDICT, 4), sampler._uniforms(place, 0, Purpose.TOKEN, 2)]
        rows.append(mx.concatenate([*drafts, *verdict]))
    numbers = np.array(mx.stack(rows))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    related = np.abs(np.corrcoef(numbers.T) - np.eye(numbers.shape[1]))
    assert related.max() < 4.5 / len(numbers) ** 0.5
    later = np.abs(np.corrcoef(numbers[1:].T, numbers[:-1].T)[:14, 14:])
    assert later.max() < 4.5 / len(numbers) ** 0.5
