"""Runs repeat by their seed; no two things that are drawn share their dice."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from toy_sampling import decode_all, decode_one, make_toy

from skulk_core.sampling.base import Place
from skulk_core.sampling.keys import Purpose, key, key_bits
from skulk_core.sampling.settings import MAX_SEED, AcceptRule, SamplingSettings
from skulk_core.sampling.stochastic import StochasticSampler, make_sampler

WARM = SamplingSettings(temperature=1.0)


def test_no_two_keys_are_equal() -> None:
    """100,000 of neighbouring seeds, places and offsets, and of seeds at the end of their range."""
    seeds = [*range(20), 2**32, 2**32 + 1, 2**63, MAX_SEED, MAX_SEED - 1]
    asked = [(s, n, o, p) for s in seeds for n in range(250) for o in range(8) for p in Purpose]
    assert len({key_bits(*each) for each in asked}) == len(asked) == 100_000


def test_a_key_holds_all_its_bits() -> None:
    """32 of them would collide within a long answer to many seeds."""
    for seed in (0, 1, MAX_SEED):
        bits = key_bits(seed, 17, 2, Purpose.DRAFT)
        assert key(seed, 17, 2, Purpose.DRAFT).tolist() == [bits >> 32, bits & 0xFFFFFFFF]
    assert key_bits(0, 0, 0, Purpose.DRAFT) >> 32 != 0


def test_keys_do_not_change_between_versions() -> None:
    """A seed that a user wrote down must give the same text later: these values are part of the program's promise."""
    assert key_bits(0, 5, 0, Purpose.DRAFT) == 0x847D692F6A99184E
    assert key_bits(7, 1000, 3, Purpose.VERDICT) == 0x398C5D8CD78ECD46


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
        rows.append(mx.concatenate([*drafts, sampler._uniforms(place, 0, Purpose.VERDICT, 6)]))
    numbers = np.array(mx.stack(rows))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    related = np.abs(np.corrcoef(numbers.T) - np.eye(numbers.shape[1]))
    assert related.max() < 4.5 / len(numbers) ** 0.5
    later = np.abs(np.corrcoef(numbers[1:].T, numbers[:-1].T)[:14, 14:])
    assert later.max() < 4.5 / len(numbers) ** 0.5
