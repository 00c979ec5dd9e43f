"""Penalties, bias and temperature through the whole loop: the target, its head and the sampler on one text."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from demo import demo, demo_head, prompts
from mlx_lm.generate import generate_step
from toy_sampling import assert_distributed, plain_distribution

from skulk_core.decode.decoder import Decoder
from skulk_core.heads.base import DraftHead
from skulk_core.heads.ngram import NgramHead
from skulk_core.sampling.settings import AcceptRule, SamplingSettings
from skulk_core.sampling.stochastic import make_sampler

NUM_TOKENS = 40
# the demo's own favourites after these prompts, so that a ban and a penalty change the text
PENALISED = SamplingSettings(repetition_penalty=1.15, presence_penalty=0.3, frequency_penalty=0.2)
HEADS: Mapping[str, DraftHead] = {"head": demo_head().head, "ngram": NgramHead()}


def encoded(index: int) -> list[int]:
    tokens: list[int] = demo().tokenizer.encode(prompts()[index])
    return tokens


def decode(settings: SamplingSettings, prompt: list[int], depth: int, num_tokens: int, head: str = "head") -> list[int]:
    decoder = Decoder(demo().target, HEADS[head], make_sampler(settings))
    return [*texts(decoder, settings, prompt, depth, num_tokens, 1)][0]


def texts(
    decoder: Decoder, settings: SamplingSettings, prompt: list[int], depth: int, num_tokens: int, num_seeds: int
) -> Iterator[list[int]]:
    """An answer for each seed from the settings' on."""
    for seed in range(settings.seed, settings.seed + num_seeds):
        tokens = [decoder.prefill(prompt, depth, sampler=make_sampler(replace(settings, seed=seed)))]
        for round_ in decoder.rounds(num_tokens - 1):
            tokens += round_.tokens
        yield tokens


@cache
def banned() -> tuple[int, ...]:
    """The tokens that the demo would like best in these texts."""
    all_of_them = [token for index in range(3) for token in plain(index)]
    return tuple(sorted(set(all_of_them), key=all_of_them.count)[-5:])


@cache
def reference(index: int, settings: SamplingSettings) -> list[int]:
    """mlx-lm's own greedy generation with penalties written out here, token by token."""
    prompt = encoded(index)

    def penalised(text: mx.array, logits: mx.array) -> mx.array:
        scores = np.array(logits.astype(mx.float32))[0]
        for token, bias in settings.logit_bias:
            scores[token] += bias
        answer = text.tolist()[len(prompt) :]
        for token in set(text.tolist()):
            by = settings.repetition_penalty
            scores[token] = scores[token] / by if scores[token] > 0 else scores[token] * by
        for token in set(answer):
            scores[token] -= settings.presence_penalty + answer.count(token) * settings.frequency_penalty
        return mx.array(scores)[None]

    steps = generate_step(mx.array(prompt), demo().target.model, max_tokens=NUM_TOKENS, logits_processors=[penalised])
    return [token for token, _ in steps]


@cache
def plain(index: int) -> list[int]:
    return decode(SamplingSettings(), encoded(index), 0, NUM_TOKENS)


@pytest.mark.parametrize(
    ("depth", "head"), [(0, "head"), (1, "head"), (2, "head"), (3, "head"), (4, "head"), (4, "ngram")]
)
def test_processors_change_the_text_alike_at_every_depth(depth: int, head: str) -> None:
    bias = tuple((token, -np.inf) for token in banned()) + ((17, 1.5),)
    for index, settings in enumerate(
        [PENALISED, replace(PENALISED, logit_bias=bias), SamplingSettings(logit_bias=bias)]
    ):
        tokens = decode(settings, encoded(index), depth, NUM_TOKENS, head)
        assert tokens == reference(index, settings), settings
        assert tokens != plain(index)


@pytest.mark.parametrize(
    ("depth", "rule", "head"), [(0, "block", "head"), (1, "token", "head"), (4, "block", "head"), (4, "block", "ngram")]
)
def test_a_seeded_run_repeats(depth: int, rule: str, head: str) -> None:
    settings = SamplingSettings(temperature=0.7, accept=AcceptRule(rule))
    runs = [decode(replace(settings, seed=seed), encoded(4), depth, 30, head) for seed in (0, 0, 1, 2**64 - 1)]
    assert runs[0] == runs[1]
    assert len(set(map(tuple, runs))) == 3


@pytest.mark.parametrize("rule", AcceptRule)
def test_a_banned_token_is_never_drawn(rule: AcceptRule) -> None:
    """Not as a draft's replacement nor as the free token either."""
    bias = tuple((token, -np.inf) for token in banned())
    settings = SamplingSettings(temperature=1.5, logit_bias=bias, accept=rule)
    for depth in (0, 3):
        assert not set(decode(settings, encoded(0), depth, 60)) & set(banned())
    free = decode(replace(settings, logit_bias=()), encoded(0), 3, 60)
    assert set(free) & set(banned())


DRAWN = SamplingSettings(temperature=1.4, top_k=2, repetition_penalty=1.1, frequency_penalty=0.3)
LENGTH = 5


@cache
def enumerated() -> tuple[np.ndarray, dict[tuple[int, ...], list[int]]]:
    """Probabilities of every answer, ``[2] * LENGTH``, and after each the two tokens that may follow, in order."""
    target, prompt = demo().target, encoded(2)[:6]
    probs = np.ones((2,) * LENGTH)
    following: dict[tuple[int, ...], list[int]] = {}
    for length in range(LENGTH):
        for path in product(range(2), repeat=length):
            answer = [following[path[:i]][path[i]] for i in range(length)]
            rows = target.hidden(target.run(target.embed(mx.array(prompt + answer), 0), target.make_caches()))
            logits = np.array(target.logits(rows.post_norm[-1:]).astype(mx.float32))[0]
            row = plain_distribution(logits, DRAWN, prompt, answer)
            following[path] = np.flatnonzero(row).tolist()
            probs[path] *= row[following[path]].reshape(-1, *[1] * (LENGTH - length - 1))
    return probs, following


@pytest.mark.parametrize(("depth", "rule", "head"), [(3, "block", "head"), (2, "token", "ngram")])
def test_answers_of_the_demo_are_distributed_as_exact_enumeration_says(depth: int, rule: str, head: str) -> None:
    """The loop places every round where its keys and penalties belong, and heads hand over what they drew from."""
    probs, following = enumerated()
    settings = replace(DRAWN, accept=AcceptRule(rule))
    decoder = Decoder(demo().target, HEADS[head], make_sampler(settings))
    paths = []
    for tokens in texts(decoder, settings, encoded(2)[:6], depth, LENGTH, 160):
        path: tuple[int, ...] = ()
        for token in tokens:
            assert token in following[path]
            path += (following[path].index(token),)
        paths.append(path)
    assert_distributed(np.array(paths), probs, f"{rule}, {head}")
