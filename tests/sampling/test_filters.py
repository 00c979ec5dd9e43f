"""Filters, penalties and bias do what users of transformers and vLLM know by these names."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from skulk_core.sampling.base import Place
from skulk_core.sampling.filters import distribution
from skulk_core.sampling.processors import Processors
from skulk_core.sampling.settings import SamplingSettings

VOCAB = 997
ROWS = np.random.default_rng(3).normal(scale=3, size=(20, VOCAB)).astype(np.float32)
PROMPT = [3, 5, 5, 900, 41]
ANSWER = [7, 5, 7, 8, 7, 900, 8]


def probabilities(settings: SamplingSettings) -> np.ndarray:
    """Ours, of every row."""
    return np.array(distribution(mx.array(ROWS), settings))


@pytest.mark.parametrize("top_k", [0, 1, 40, 996, 5000])
@pytest.mark.parametrize("top_p", [1e-3, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 1.0])
def test_filters_leave_what_those_of_transformers_leave(top_k: int, top_p: float, min_p: float) -> None:
    for temperature in (0.3, 1.0, 1.9):
        theirs = [TemperatureLogitsWarper(temperature)]
        theirs += [TopKLogitsWarper(top_k)] if top_k else []
        theirs += [TopPLogitsWarper(top_p)] if top_p < 1 else []
        theirs += [MinPLogitsWarper(min_p)] if min_p else []
        expected = LogitsProcessorList(theirs)(torch.zeros(1, 1, dtype=torch.long), torch.tensor(ROWS)).softmax(-1)
        settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        ours = probabilities(settings)
        assert ((ours > 0) == (expected.numpy() > 0)).all()
        np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-4, atol=1e-7)


def test_equally_likely_tokens_at_the_edge_all_stay() -> None:
    """Which of them went would depend on their order; transformers keeps them too where it counts tokens."""
    logits = mx.array([[2.0, 1.0, 1.0, 1.0, 0.0]])
    for settings in (SamplingSettings(temperature=1.0, top_k=2), SamplingSettings(temperature=1.0, top_p=0.5)):
        assert (np.array(distribution(logits, settings))[0] > 0).tolist() == [True, True, True, True, False]


def test_the_same_from_half_precision() -> None:
    """A distribution in bfloat16 would add up to anything but 1."""
    probs = np.array(distribution(mx.array(ROWS).astype(mx.bfloat16), SamplingSettings(temperature=1.0, top_p=0.9)))
    assert probs.dtype == np.float32
    assert probs.sum(axis=-1) == pytest.approx(np.ones(len(ROWS)), abs=1e-5)


@pytest.mark.parametrize("penalty", [0.5, 1.3, 3.0])
def test_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    text = torch.tensor([PROMPT + ANSWER])
    processors = Processors(SamplingSettings(repetition_penalty=penalty))
    place = processors.start(PROMPT, VOCAB).after(mx.array(ANSWER))
    for row in ROWS:
        expected = RepetitionPenaltyLogitsProcessor(penalty)(text, torch.tensor(row[None])).numpy()
        np.testing.assert_allclose(np.array(processors(mx.array(row[None]), place)), expected, rtol=1e-6)


def test_bias_comes_before_penalties_as_in_transformers() -> None:
    """The penalty multiplies: in the other order a biased token would keep part of its bias."""
    bias, text = {(5,): 4.0, (900,): -2.5, (11,): 1.0}, torch.tensor([PROMPT])
    theirs = LogitsProcessorList([SequenceBiasLogitsProcessor(bias), RepetitionPenaltyLogitsProcessor(1.7)])
    pairs = tuple((token, value) for (token,), value in bias.items())
    processors = Processors(SamplingSettings(repetition_penalty=1.7, logit_bias=pairs))
    place = processors.start(PROMPT, VOCAB)
    for row in ROWS:
        ours = np.array(processors(mx.array(row[None]), place))
        np.testing.assert_allclose(ours, theirs(text, torch.tensor(row[None])).numpy(), rtol=1e-6)


@pytest.mark.parametrize(("presence", "frequency"), [(0.7, 0.0), (0.0, 0.4), (-1.0, 1.5)])
def test_presence_and_frequency_look_at_the_answer_alone(presence: float, frequency: float) -> None:
    """As in vLLM: a word of the question may be used; in the answer each time costs, and the first time once more."""
    processors = Processors(SamplingSettings(presence_penalty=presence, frequency_penalty=frequency))
    place = processors.start(PROMPT, VOCAB).after(mx.array(ANSWER[:4])).after(mx.array(ANSWER[4:]))
    expected = ROWS[0].astype(np.float64)
    for token in ANSWER:
        expected[token] -= frequency
    for token in set(ANSWER):
        expected[token] -= presence
    np.testing.assert_allclose(np.array(processors(mx.array(ROWS[:1]), place))[0], expected, rtol=1e-6)


SOME = SamplingSettings(
    repetition_penalty=1.4, presence_penalty=0.5, frequency_penalty=0.3, logit_bias=((7, -float("inf")), (9, 2.0))
)


@pytest.mark.parametrize(
    "settings",
    [
        SOME,
        replace(SOME, logit_bias=()),
        SamplingSettings(frequency_penalty=-0.5),
        SamplingSettings(logit_bias=((7, 3.0),)),
        SamplingSettings(),
    ],
)
def test_a_pass_of_rows_is_what_its_rows_are_alone(settings: SamplingSettings) -> None:
    """Row by row on the growing text: a token drafted twice in one pass is penalised twice."""
    processors = Processors(settings)
    start = processors.start(PROMPT, VOCAB).after(mx.array([41]))
    rows, drafts = mx.array(ROWS[:6]), mx.array([5, 7, 7, 5, 9])
    together = processors(rows, start, drafts)
    for row in range(6):
        place = start if row == 0 else start.after(drafts[:row])
        assert mx.array_equal(together[row : row + 1], processors(rows[row : row + 1], place)).item()
    assert processors.do_nothing is (settings == SamplingSettings())


def test_a_place_counts_what_came_after_it() -> None:
    counted = Processors(SOME).start(PROMPT, VOCAB).after(mx.array([5, 5])).after(mx.array([8]))
    assert counted.num_tokens == len(PROMPT) + 3
    assert counted.counts is not None
    in_answer = np.array(counted.counts.in_answer)
    assert {token: in_answer[token] for token in np.flatnonzero(in_answer)} == {5: 2, 8: 1}
    assert np.flatnonzero(np.array(counted.counts.in_prompt)).tolist() == sorted(set(PROMPT))
    assert Processors(SamplingSettings()).start(PROMPT, VOCAB) == Place(len(PROMPT))
