"""A toy target and toy drafters, decoded by the shipped samplers for thousands of seeds at once, and the exact answer.

The loop does what `skulk_core.decode.decoder` does, one round after the other, with every seed's text in step: the
sampler's own methods are mapped over the seeds by `mx.vmap`, and each asks for its numbers as it always does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np

from skulk_core.sampling import stochastic
from skulk_core.sampling.base import Counts, Draft, Place, Sampler
from skulk_core.sampling.keys import uniforms
from skulk_core.sampling.settings import SamplingSettings

PROMPT = (0, 1, 1)
NUM_SEEDS = 8_000
Dice = Callable[..., mx.array]
Tables = dict[tuple[Any, ...], mx.array]
_tables: Tables = {}


@dataclass(frozen=True)
class Toy:
    """Logits ``[V, V, V]`` of what follows two tokens, by the target and by a drafter; None: it looks tokens up."""

    target: np.ndarray
    drafter: np.ndarray | None

    @property
    def vocab_size(self) -> int:
        """``V``."""
        return int(self.target.shape[0])


@dataclass(frozen=True)
class Texts:
    """``tokens`` ``[N, L]`` of ``N`` seeds, ``accepted`` and ``drafted`` over all their rounds."""

    tokens: np.ndarray
    accepted: int
    drafted: int


DRAFTERS = ("perfect", "good", "bad", "uniform", "opposed", "certain", "lookup")


def make_toy(drafter: str, vocab_size: int = 3) -> Toy:
    """A target and a drafter that is perfect, good, bad, uniform, opposed, certain, or merely looks tokens up."""
    random = np.random.default_rng(5)
    target, other, noise = random.normal(size=(3, *[vocab_size] * 3)).astype(np.float32)
    drafters = {
        "perfect": target,
        "good": target + 0.5 * noise,
        "bad": 1.5 * other,
        "uniform": np.zeros_like(target),
        # nearly all its mass where the target has its least, or after filters none
        "opposed": -6 * target,
        # drawn, and yet always the same
        "certain": np.where(other == other.max(axis=-1, keepdims=True), 200, 0).astype(np.float32),
        "lookup": None,
    }
    return Toy(target, drafters[drafter])


def decode_all(sampler: Sampler, toy: Toy, depth: int, length: int, dice: Dice = uniforms) -> Texts:
    """Answers of ``length`` tokens for the `NUM_SEEDS` seeds from the sampler's on; ``dice`` make the numbers."""
    everyone = _Rows.at(sampler.start(PROMPT, toy.vocab_size), NUM_SEEDS)
    prompts = np.tile(np.array(PROMPT), (NUM_SEEDS, 1))
    first = _each(sampler, len(PROMPT), everyone, dice, _choose, [_logits(toy.target, prompts)])
    tokens = np.zeros((NUM_SEEDS, length), np.int32)
    tokens[:, 0] = np.array(first[0])[:, 0]
    # which seeds' texts have so many tokens: each meets the next round as one group
    waiting: list[list[_Rows]] = [[] for _ in range(length + 1)]
    waiting[1].append(everyone.after(tokens[:, :1]))
    accepted = drafted = 0
    for done in range(1, length):
        if not waiting[done]:
            continue
        rows, num_tokens = _Rows.joined(waiting[done]), len(PROMPT) + done
        # the last token is the target's own, as in the decoder
        width = min(depth, length - done - 1) + 1
        context = np.concatenate([prompts, tokens], axis=1)[rows.seeds, :num_tokens]
        drafts, probs = _drafts(sampler, toy, rows, dice, context, width - 1)
        following = np.concatenate([context, drafts], axis=1)
        logits = np.stack([_logits(toy.target, following[:, : num_tokens + row]) for row in range(width)], axis=1)
        args = [logits, drafts, *([] if probs is None else [probs])]
        counts, chosen = map(np.array, _each(sampler, num_tokens, rows, dice, _accept, args))
        accepted, drafted = accepted + int(counts.sum()), drafted + (width - 1) * len(counts)
        for kept in range(1, width + 1):
            group = np.flatnonzero(counts == kept - 1)
            if len(group):
                tokens[rows.seeds[group], done : done + kept] = chosen[group, :kept]
                waiting[done + kept].append(rows.of(group).after(chosen[group, :kept]))
    return Texts(tokens, accepted, drafted)


def decode_one(sampler: Sampler, toy: Toy, depth: int, length: int) -> list[int]:
    """One answer, plainly: no mapping, nothing replaced."""
    text, place = list(PROMPT), sampler.start(PROMPT, toy.vocab_size)
    bonus = sampler.choose(mx.array(_logits(toy.target, np.array([text]))), place)
    place, left = place.after(bonus), length - 1
    text += bonus.tolist()
    while left:
        drafts: list[mx.array] = []
        probs: list[mx.array] = []
        for _ in range(min(depth, left - 1)):
            so_far = np.array([text + [int(draft.item()) for draft in drafts]])
            if toy.drafter is None:
                drafts.append(mx.array(_looked_up(so_far, toy.vocab_size)))
                continue
            token, distribution = sampler.draft(mx.array(_logits(toy.drafter, so_far)), place, drafts)
            drafts.append(token)
            probs += [] if distribution is None else [distribution]
        draft = Draft(mx.concatenate(drafts) if drafts else mx.zeros((0,), mx.int32))
        draft = Draft(draft.tokens, mx.concatenate(probs)) if probs else draft
        rows = [text + draft.tokens[:row].tolist() for row in range(draft.depth + 1)]
        logits = mx.array(np.concatenate([_logits(toy.target, np.array([row])) for row in rows]))
        verdict = sampler.accept(logits, draft, place)
        kept = verdict.tokens[: int(verdict.num_accepted.item()) + 1]
        text, place, left = text + kept.tolist(), place.after(kept), left - kept.shape[0]
    return text[len(PROMPT) :]


def plain_distribution(
    logits: np.ndarray, settings: SamplingSettings, prompt: Sequence[int], answer: Sequence[int]
) -> np.ndarray:
    """What plain sampling draws the next token from, float64, token by token as the documentation says it."""
    scores = [float(logit) for logit in logits]
    for token, bias in settings.logit_bias:
        scores[token] += bias
    for token in set(prompt) | set(answer):
        by = settings.repetition_penalty
        scores[token] = scores[token] / by if scores[token] > 0 else scores[token] * by
    for token in answer:
        scores[token] -= settings.frequency_penalty
    for token in set(answer):
        scores[token] -= settings.presence_penalty
    weights = np.exp((np.array(scores) - max(scores)) / settings.temperature)
    by_weight = sorted(range(len(scores)), key=lambda token: -weights[token])
    kept = by_weight[: settings.top_k] if settings.top_k else by_weight
    nucleus: list[int] = []
    for token in kept:
        if sum(weights[nucleus]) < settings.top_p * sum(weights[kept]):
            nucleus.append(token)
    kept = [token for token in nucleus if weights[token] >= settings.min_p * weights[nucleus[0]]]
    probs = np.zeros(len(scores))
    probs[kept] = weights[kept] / sum(weights[kept])
    return probs


def enumerate_texts(toy: Toy, settings: SamplingSettings, length: int) -> np.ndarray:
    """The probability of every answer of ``length`` tokens, ``[V] * length``."""
    probs = np.ones((toy.vocab_size,) * length)
    for depth in range(length):
        for answer in product(range(toy.vocab_size), repeat=depth):
            text = [*PROMPT, *answer]
            following = plain_distribution(toy.target[text[-2], text[-1]], settings, PROMPT, answer)
            probs[answer] *= following.reshape(-1, *[1] * (length - depth - 1))
    return probs


def assert_distributed(tokens: np.ndarray, probs: np.ndarray, what: str) -> None:
    """Fail if texts ``[N, L]`` that were drawn from ``probs`` would look like these less than once in 10^5 times.

    Pearson's chi-square over whole texts, and over every run of up to three tokens, where a bias may show that is
    spread thinly over whole texts.
    """
    length = tokens.shape[1]
    seen = np.zeros(probs.shape)
    np.add.at(seen, tuple(tokens.T), 1)
    assert not seen[probs == 0].any(), f"{what}: a text that plain sampling cannot give"
    for run in [length, *range(1, min(4, length))]:
        for start in range(length - run + 1):
            rest = tuple(set(range(length)) - set(range(start, start + run)))
            away, variation = _standard_deviations(seen.sum(axis=rest), probs.sum(axis=rest) * len(tokens))
            where = f"{what}, tokens {start} to {start + run - 1}"
            assert away < 4.3, f"{where}: {away:.1f} standard deviations, total variation {variation:.3f}"


def _standard_deviations(seen: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """How far counts are off as a normal deviate, and the total variation. What comes fewer than 5 times is one."""
    rare = expected < 5
    seen, expected = np.append(seen[~rare], seen[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    seen, expected = seen[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    if not freedom:
        return 0.0, 0.0
    # Wilson and Hilferty 1931: the cube root of a chi-square is nearly normal
    scaled = (((seen - expected) ** 2 / expected).sum() / freedom) ** (1 / 3)
    away = (scaled - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))
    return float(away), float(np.abs(seen - expected).sum() / 2 / seen.sum())


@dataclass(frozen=True)
class _Rows:
    """Seeds whose texts are equally long, and what each text holds so far, ``[n, V]``, where that is counted.

    What the prompt holds is the same for all and yet mapped: MLX 0.32.4 maps some operations wrongly where one operand
    is mapped and another is not.
    """

    seeds: np.ndarray
    counts: Counts | None

    def of(self, group: np.ndarray) -> "_Rows":
        """Some of them."""
        if self.counts is None:
            return _Rows(self.seeds[group], None)
        which = mx.array(group)
        return _Rows(self.seeds[group], Counts(self.counts.in_prompt[which], self.counts.in_answer[which]))

    def after(self, tokens: np.ndarray) -> "_Rows":
        """The rows with ``tokens`` ``[n, k]`` more, by `Place.after`."""

        def one(in_prompt: mx.array, in_answer: mx.array, more: mx.array) -> mx.array:
            counts = Place(0, Counts(in_prompt, in_answer)).after(more).counts
            assert counts is not None
            return counts.in_answer

        if self.counts is None:
            return self
        in_prompt = self.counts.in_prompt
        return _Rows(self.seeds, Counts(in_prompt, mx.vmap(one)(in_prompt, self.counts.in_answer, mx.array(tokens))))

    @staticmethod
    def at(start: Place, num_seeds: int) -> "_Rows":
        """Every seed, at the end of the prompt."""
        counts = start.counts
        if counts is not None:
            shape = (num_seeds, counts.in_prompt.shape[0])
            counts = Counts(mx.broadcast_to(counts.in_prompt, shape), mx.broadcast_to(counts.in_answer, shape))
        return _Rows(np.arange(num_seeds), counts)

    @staticmethod
    def joined(parts: Sequence["_Rows"]) -> "_Rows":
        """All of them."""
        counts = [part.counts for part in parts if part.counts is not None]
        joined = None
        if counts:
            in_prompt, in_answer = ([getattr(one, name) for one in counts] for name in ("in_prompt", "in_answer"))
            joined = Counts(mx.concatenate(in_prompt), mx.concatenate(in_answer))
        return _Rows(np.concatenate([part.seeds for part in parts]), joined)


def _drafts(
    sampler: Sampler, toy: Toy, rows: _Rows, dice: Dice, context: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Drafts ``[n, d]`` after texts ``context`` ``[n, T]`` and what they were drawn from ``[n, d, V]``."""
    drafts = np.zeros((len(context), 0), np.int32)
    probs: list[np.ndarray] = []
    for _ in range(depth):
        so_far = np.concatenate([context, drafts], axis=1)
        if toy.drafter is None:
            token = _looked_up(so_far, toy.vocab_size)[:, None]
        else:
            args = [_logits(toy.drafter, so_far), drafts]
            token, drawn_from = map(np.array, _each(sampler, context.shape[1], rows, dice, _draft, args))
            probs.append(drawn_from)
        drafts = np.concatenate([drafts, token], axis=1).astype(np.int32)
    return drafts, np.concatenate(probs, axis=1) if probs else None


def _choose(sampler: Sampler, place: Place, logits: mx.array) -> tuple[mx.array, ...]:
    return (sampler.choose(logits[None], place),)


def _draft(sampler: Sampler, place: Place, logits: mx.array, drafted: mx.array) -> tuple[mx.array, ...]:
    token, probs = sampler.draft(logits[None], place, [drafted[i : i + 1] for i in range(drafted.shape[0])])
    assert probs is not None
    return token, probs


def _accept(
    sampler: Sampler, place: Place, logits: mx.array, tokens: mx.array, probs: mx.array | None = None
) -> tuple[mx.array, ...]:
    verdict = sampler.accept(logits, Draft(tokens, probs), place)
    # an array made in it is the same for all seeds: mapped, it needs something of theirs
    return verdict.num_accepted + 0 * verdict.tokens[0], verdict.tokens


def _each(
    sampler: Sampler, num_tokens: int, rows: _Rows, dice: Dice, ask: Callable[..., Any], args: Sequence[np.ndarray]
) -> tuple[mx.array, ...]:
    """``ask`` of the sampler for every row at once."""
    counts = [] if rows.counts is None else [rows.counts.in_prompt, rows.counts.in_answer]

    def one(seed: mx.array, *mapped: mx.array) -> tuple[mx.array, ...]:
        place = Place(num_tokens, Counts(*mapped[:2]) if counts else None)
        with _dice_of(seed, dice):
            out: tuple[mx.array, ...] = ask(sampler, place, *mapped[len(counts) :])
        return out

    out = mx.vmap(one)(mx.array(rows.seeds.astype(np.uint32)), *counts, *map(mx.array, args))
    mx.eval(out)
    return tuple(out)


@contextmanager
def _dice_of(seed: mx.array, dice: Dice) -> Iterator[None]:
    """The sampler gets the numbers it asks for, of the seed ``seed`` places after the one it asks with."""

    def numbers(first_seed: int, *what: int) -> mx.array:
        return mx.take(_table(dice, first_seed, *what), seed, axis=0)

    with mock.patch.object(stochastic, "uniforms", numbers):
        yield


def _table(dice: Dice, first_seed: int, *what: int) -> mx.array:
    """The numbers ``[N, count]`` of many seeds."""
    known = (dice, first_seed, *what)
    if known not in _tables:
        _tables[known] = mx.array(np.stack([np.array(dice(first_seed + i, *what)) for i in range(NUM_SEEDS)]))
    return _tables[known]


def _logits(table: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Rows ``[n, V]`` after texts ``[n, T]``."""
    rows: np.ndarray = table[texts[:, -2], texts[:, -1]]
    return rows


def _looked_up(texts: np.ndarray, vocab_size: int) -> np.ndarray:
    """Some token ``[n]`` that depends on the text alone."""
    tokens: np.ndarray = (texts[:, -1] * 2 + texts[:, -2] + 1) % vocab_size
    return tokens.astype(np.int32)
