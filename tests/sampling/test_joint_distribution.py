"""With drafts the text must be distributed as without: whole texts of several rounds, against exact enumeration."""

from dataclasses import replace

import numpy as np
import pytest
from toy_sampling import DRAFTERS, Texts, assert_distributed, decode_all, decode_one, enumerate_texts, make_toy

from skulk_core.sampling import drawing
from skulk_core.sampling.settings import AcceptRule, SamplingSettings
from skulk_core.sampling.stochastic import make_sampler

BAN = float("-inf")
SETTINGS = {
    "temperature 1": SamplingSettings(temperature=1.0),
    "hot": SamplingSettings(temperature=1.7),
    "cold": SamplingSettings(temperature=0.5),
    "top-p": SamplingSettings(temperature=1.0, top_p=0.8),
    "top-k": SamplingSettings(temperature=1.2, top_k=2),
    "min-p": SamplingSettings(temperature=1.0, min_p=0.25),
    "all filters": SamplingSettings(temperature=1.3, top_k=2, top_p=0.9, min_p=0.1),
    "repetition": SamplingSettings(temperature=0.8, repetition_penalty=1.4),
    "presence and frequency": SamplingSettings(temperature=0.8, presence_penalty=0.6, frequency_penalty=0.4),
    "bias": SamplingSettings(temperature=0.9, logit_bias=((0, 0.8), (2, -0.5))),
    "ban": SamplingSettings(temperature=0.9, logit_bias=((1, BAN),)),
    "everything": SamplingSettings(
        temperature=0.8,
        top_p=0.95,
        min_p=0.05,
        repetition_penalty=1.2,
        presence_penalty=-0.3,
        frequency_penalty=0.4,
        logit_bias=((2, 0.5),),
    ),
}


def decode(settings: SamplingSettings, drafter: str, depth: int) -> Texts:
    """Texts of a token, at least one round of the whole depth, and what its verdict leaves to later rounds."""
    return decode_all(make_sampler(settings), make_toy(drafter), depth, depth + 2)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("rule", AcceptRule)
@pytest.mark.parametrize("name", SETTINGS)
def test_texts_are_distributed_as_without_drafts(name: str, rule: AcceptRule, depth: int) -> None:
    settings = replace(SETTINGS[name], accept=rule)
    probs = enumerate_texts(make_toy("perfect"), settings, depth + 2)
    for drafter in DRAFTERS:
        assert_distributed(decode(settings, drafter, depth).tokens, probs, drafter)


@pytest.mark.parametrize("name", ["temperature 1", "everything"])
def test_without_drafts_too(name: str) -> None:
    settings = SETTINGS[name]
    texts = decode_all(make_sampler(settings), make_toy("perfect"), 0, 4)
    assert_distributed(texts.tokens, enumerate_texts(make_toy("perfect"), settings, 4), "depth 0")


@pytest.mark.parametrize("rule", AcceptRule)
def test_a_vocabulary_of_several_blocks(rule: AcceptRule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large vocabularies are drawn from in two steps."""
    monkeypatch.setattr(drawing, "_BLOCK", 2)
    monkeypatch.setattr(drawing, "_MOST_AT_ONCE", 0)
    settings = SamplingSettings(temperature=1.1, accept=rule)
    toy = make_toy("good", 5)
    texts = decode_all(make_sampler(settings), toy, 2, 4)
    assert_distributed(texts.tokens, enumerate_texts(toy, settings, 4), "blocks")


@pytest.mark.parametrize("name", SETTINGS)
def test_many_seeds_at_once_are_what_each_is_alone(name: str) -> None:
    """The tests above map the sampler over seeds; a sampler of its own for each seed must give the same texts."""
    for index, drafter in enumerate(DRAFTERS):
        settings = replace(SETTINGS[name], accept=list(AcceptRule)[index % 2])
        depth = 1 + index % 4
        texts = decode(settings, drafter, depth).tokens
        for seed in range(0, 12):
            alone = decode_one(make_sampler(replace(settings, seed=seed)), make_toy(drafter), depth, depth + 2)
            assert alone == texts[seed].tolist(), (drafter, seed)


@pytest.mark.parametrize("drafter", ["good", "bad", "uniform"])
@pytest.mark.parametrize("name", ["temperature 1", "top-p", "everything"])
def test_a_block_keeps_more_than_tokens(name: str, drafter: str) -> None:
    """Block verification is the default because it is never worse; from the second draft on it can be better."""
    for depth in (1, 4):
        both = [decode(replace(SETTINGS[name], accept=rule), drafter, depth) for rule in AcceptRule]
        token, block = (texts.accepted / texts.drafted for texts in both)
        assert block == token if depth == 1 else block > 1.01 * token


def test_a_perfect_draft_is_kept_whole_but_for_rounding() -> None:
    for rule in AcceptRule:
        texts = decode(replace(SETTINGS["everything"], accept=rule), "perfect", 4)
        assert texts.accepted >= texts.drafted * (1 - 1e-4)


def test_a_draft_the_target_cannot_write_is_never_kept() -> None:
    for rule in AcceptRule:
        settings = SamplingSettings(temperature=1.0, top_k=1, accept=rule)
        texts = decode_all(make_sampler(settings), make_toy("opposed"), 3, 5)
        assert texts.accepted == 0
        assert len(np.unique(texts.tokens, axis=0)) == 1
