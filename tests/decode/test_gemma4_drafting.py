"""A trained Gemma 4 with its assistant: the text is plain decoding's, and what is drafted is worth drafting."""

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import assistants
import mlx.core as mx
import numpy as np
import pytest
from assistants import ASSISTANT, PROMPTS, TARGET
from gemma4_tiny import SIZES, WINDOW, save_assistant, save_target, torch_assistant, torch_target
from mlx_lm.convert import convert
from mlx_lm.generate import generate_step
from toy_sampling import assert_distributed, plain_distribution

from skulk_core.decode.decoder import Decoder
from skulk_core.heads.base import DraftHead
from skulk_core.heads.files import assistant_head
from skulk_core.heads.gemma4_assistant import AssistantHead
from skulk_core.heads.loading import load_head
from skulk_core.models.loading import load
from skulk_core.sampling.base import Draft, Place, Sampler
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler
from skulk_core.types import PositionRule

NUM_TOKENS = 500
LONG = 1000
LAST = {"position_rule": PositionRule.LAST_COMMITTED}
# What naming the commonest character of the text always would be worth.
CHANCE = 0.16


@cache
def reference(text: str) -> list[int]:
    """Plain greedy decoding, one row at a time."""
    return assistants.decode(None, text, 0, NUM_TOKENS).tokens


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_greedy_text_is_plain_decodings(depth: int) -> None:
    """Twenty windows of text, in float32: a user never sees other text because of speculation."""
    decoded = assistants.decode(assistants.assistant().head, PROMPTS[0], depth, NUM_TOKENS)
    assert decoded.tokens == reference(PROMPTS[0])
    assert len(decoded.rounds) < NUM_TOKENS / (1.3 if depth == 1 else 1.6)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_decodes_what_it_decodes_plainly(size: str, tmp_path: Path) -> None:
    """Experts, layer inputs, shared keys and values; an assistant that knows nothing, so that most drafts fall."""
    trunk = torch_target(size, seed=3)
    tiny = torch_assistant(trunk, ordered=size in ("E2B", "E4B"))
    model = load(save_target(trunk, tmp_path / "target"), "float32")
    head = load_head(model, assistant_head(save_assistant(tiny, tmp_path / "assistant")), overrides=LAST).head
    texts = []
    for depth in (0, 3):
        decoder = Decoder(model.target, head, GreedySampler())
        tokens = [decoder.prefill(list(range(3, 30)), depth)]
        for round_ in decoder.rounds(3 * WINDOW):
            tokens += round_.tokens
        texts.append(tokens)
    assert texts[0] == texts[1]


def test_plain_text_is_mlx_lms_while_its_window_lasts() -> None:
    """Its own cache is right as long as nothing is taken back."""
    prompt = mx.array(assistants.target().tokenizer.encode(PROMPTS[0]))
    steps = generate_step(prompt, assistants.target().target.model, max_tokens=200)
    assert [token for token, _ in steps] == reference(PROMPTS[0])[:200]


def test_one_synchronisation_a_round() -> None:
    """A wait per draft would eat what speculation gains on a fast device."""
    decoder = Decoder(assistants.target().target, assistants.assistant().head, GreedySampler())
    decoder.prefill(assistants.target().tokenizer.encode(PROMPTS[1]), 3)
    assert sum(1 for _ in decoder.rounds(60)) == decoder.stats.rounds == decoder.stats.synchronisations - 1


def test_acceptance_does_not_fade_with_the_text() -> None:
    """Drawn text, which does not repeat itself, forty windows long."""
    settings = SamplingSettings(temperature=0.8, seed=1)
    drawn = assistants.decode(assistants.assistant().head, PROMPTS[1], 3, LONG, settings)
    assert drawn.accepted(0, LONG) > 0.4 > 2 * CHANCE
    early, late = drawn.accepted(0, LONG // 2), drawn.accepted(LONG // 2, LONG)
    assert late > early - 0.08
    assert min(drawn.accepted(start, start + LONG // 4) for start in range(0, LONG, LONG // 4)) > 0.35


def test_what_is_wired_wrongly_drafts_visibly_worse() -> None:
    """The measure can fail: at a position beside the right one, and with keys and values of the prompt alone.

    All three decode the same text, plain decoding's.
    """
    head, beside = assistants.assistant().head, assistants.assistant(PositionRule.BEFORE_LAST).head
    stale = load_head(assistants.target(), assistant_head(ASSISTANT), overrides=LAST).head

    def remember(prompt: list[int]) -> None:
        target = assistants.target().target
        copied = target.make_caches()
        target.run_and_commit(target.embed(mx.array(prompt), 0), copied)
        stale.read_from(copied)

    num_tokens = 320
    right, off = (assistants.decode(each, PROMPTS[0], 3, num_tokens) for each in (head, beside))
    old = assistants.decode(stale, PROMPTS[0], 3, num_tokens, after_prefill=remember)
    assert right.tokens == off.tokens == old.tokens == reference(PROMPTS[0])[:num_tokens]
    shares = [each.accepted(num_tokens // 2, num_tokens) for each in (right, off, old)]
    assert shares[0] > shares[1] + 0.1 > shares[2] + 0.2, shares


def test_a_packed_target_drafts_with_an_assistant_in_bfloat16(tmp_path: Path) -> None:
    """As most people run these models: the target in few bits, the assistant as it was released."""
    convert(str(TARGET), mlx_path=str(tmp_path / "packed"), quantize=True, q_bits=8, q_group_size=64)
    model = load(tmp_path / "packed", "float32")
    assert model.quantization is not None
    loaded = load_head(model, assistant_head(ASSISTANT), precision="bfloat16", overrides=LAST)
    assert loaded.precision == "bfloat16"
    texts = []
    for head, depth in ((loaded.head, 3), (None, 0)):
        decoder = Decoder(model.target, head, GreedySampler())
        tokens = [decoder.prefill(model.tokenizer.encode(PROMPTS[0]), depth)]
        for round_ in decoder.rounds(119):
            tokens += round_.tokens
        texts.append(tokens)
        if head is not None:
            assert decoder.stats.acceptance[0] > 0.5
    assert texts[0] == texts[1]


DRAWN = SamplingSettings(temperature=1.4, top_k=2, repetition_penalty=1.1, frequency_penalty=0.3)
LENGTH = 4
# so many that answers judged by wrong probabilities are seen to be distributed otherwise
NUM_SEEDS = 500


@cache
def enumerated() -> tuple[np.ndarray, dict[tuple[int, ...], list[int]]]:
    """Probabilities of every answer, ``[2] * LENGTH``, and after each the two tokens that may follow, in order."""
    target, prompt = assistants.target().target, assistants.target().tokenizer.encode(PROMPTS[2])
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


def drawn(head: DraftHead) -> np.ndarray:
    """Answers ``[N, LENGTH]``, as places among the two tokens that may follow."""
    following = enumerated()[1]
    target, prompt = assistants.target(), assistants.target().tokenizer.encode(PROMPTS[2])
    decoder, paths = Decoder(target.target, head, make_sampler(DRAWN)), []
    for seed in range(NUM_SEEDS):
        tokens = [decoder.prefill(prompt, 3, sampler=make_sampler(replace(DRAWN, seed=seed)))]
        for round_ in decoder.rounds(LENGTH - 1):
            tokens += round_.tokens
        path: tuple[int, ...] = ()
        for token in tokens:
            assert token in following[path]
            path += (following[path].index(token),)
        paths.append(path)
    return np.array(paths)


@pytest.mark.parametrize("kind", ["plain", "centroids"])
def test_answers_are_distributed_as_exact_enumeration_says(kind: str, tmp_path: Path) -> None:
    """What an assistant's drafts are drawn from is what they are judged by."""
    loaded = assistants.assistant() if kind == "plain" else assistants.clustered(tmp_path)
    assert_distributed(drawn(loaded.head), enumerated()[0], kind)


@pytest.mark.parametrize("wrong", ["next token", "evened"])
def test_drafts_judged_by_other_probabilities_are_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above says nothing: as many answers are too few to see a bias in them."""
    draft = AssistantHead.draft

    def judged_wrongly(self: AssistantHead, depth: int, sampler: Sampler, place: Place) -> Draft:
        made = draft(self, depth, sampler, place)
        assert made.probs is not None
        other = mx.roll(made.probs, 1, -1) if wrong == "next token" else mx.where(made.probs > 0, 0.5, 0.0)
        return Draft(made.tokens, other)

    monkeypatch.setattr(AssistantHead, "draft", judged_wrongly)
    with pytest.raises(AssertionError, match="standard deviations"):
        assert_distributed(drawn(assistants.assistant().head), enumerated()[0], wrong)
