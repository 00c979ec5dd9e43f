"""A trained Gemma 4 with its assistant: the text is plain decoding's, and what is drafted is worth drafting."""

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import assistants
import mlx.core as mx
import numpy as np
import pytest
from assistants import ASSISTANT, PROMPTS, TARGET, VARIED, num_distinct
from faulty_drafts import FaultyDrafts
from gemma4_tiny import SIZES, WINDOW, save_assistant, save_target, torch_assistant, torch_target
from mlx_lm.convert import convert
from mlx_lm.generate import generate_step
from toy_sampling import assert_distributed, plain_distribution

from skulk_core.decode.decoder import Decoder
from skulk_core.heads.base import DraftHead
from skulk_core.heads.files import assistant_head
from skulk_core.heads.gemma4_assistant import AssistantHead
from skulk_core.heads.loading import load_head
from skulk_core.heads.verdict import lead
from skulk_core.models.base import Hidden
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
def reference(settings: SamplingSettings, num_tokens: int) -> list[int]:
    """The answer to the first prompt by plain decoding, one row at a time."""
    return assistants.decode(None, PROMPTS[0], 0, num_tokens, settings).tokens


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_greedy_text_is_plain_decodings(depth: int) -> None:
    """Twenty windows of text, in float32: a user never sees other text because of speculation."""
    decoded = assistants.decode(assistants.assistant().head, PROMPTS[0], depth, NUM_TOKENS, VARIED)
    assert decoded.tokens == reference(VARIED, NUM_TOKENS)
    assert num_distinct(decoded.tokens) > NUM_TOKENS / 2
    assert len(decoded.rounds) < NUM_TOKENS / (1.3 if depth == 1 else 1.6)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_decodes_what_it_decodes_plainly(size: str, tmp_path: Path) -> None:
    """Experts, layer inputs, shared keys and values; drafts of which none, some and all are taken back.

    An assistant that knows nothing drafts, too: hardly anything of it is kept.
    """
    trunk = torch_target(size, seed=3)
    tiny = torch_assistant(trunk, ordered=size in ("E2B", "E4B"))
    model = load(save_target(trunk, tmp_path / "target"), "float32")
    head = load_head(model, assistant_head(save_assistant(tiny, tmp_path / "assistant")), overrides=LAST).head
    prompt, length, depth = list(range(3, 30)), 5 * WINDOW, 3

    def decode(drafter: DraftHead | None) -> tuple[list[int], set[int]]:
        decoder = Decoder(model.target, drafter, make_sampler(VARIED))
        tokens, accepted = [decoder.prefill(prompt, 0 if drafter is None else depth)], set()
        for round_ in decoder.rounds(length - 1):
            tokens += round_.tokens
            accepted.add(round_.num_accepted)
        return tokens, accepted

    plain = decode(None)[0]
    assert num_distinct(plain) > length / 2
    assert decode(FaultyDrafts(plain, len(prompt))) == (plain, set(range(depth + 1)))
    assert decode(head)[0] == plain


def test_plain_text_is_mlx_lms_while_its_window_lasts() -> None:
    """Its own cache is right as long as nothing is taken back."""
    prompt = mx.array(assistants.target().tokenizer.encode(PROMPTS[0]))
    steps = generate_step(prompt, assistants.target().target.model, max_tokens=200)
    assert [token for token, _ in steps] == reference(SamplingSettings(), 320)[:200]


def test_one_synchronisation_a_round() -> None:
    """A wait per draft would eat what speculation gains on a fast device."""
    decoder = Decoder(assistants.target().target, assistants.assistant().head, GreedySampler())
    decoder.prefill(assistants.target().tokenizer.encode(PROMPTS[1]), 3)
    assert sum(1 for _ in decoder.rounds(60)) == decoder.stats.rounds == decoder.stats.synchronisations - 1


@cache
def varied() -> tuple[list[int], Hidden, np.ndarray]:
    """A text of `LONG` rows that a penalty keeps from standing still, its rows, and the target's choice after each."""
    target, prompt = assistants.target().target, assistants.target().tokenizer.encode(PROMPTS[0])
    settings = SamplingSettings(repetition_penalty=1.3)
    text = [*prompt, *assistants.decode(None, PROMPTS[0], 0, LONG, settings).tokens]
    hidden = target.hidden(target.run(target.embed(mx.array(text[:-1]), 0), target.make_caches()))
    return text, hidden, np.array(mx.argmax(target.logits(hidden.post_norm), axis=-1))


def rights(shift: int) -> np.ndarray:
    """Of the three drafts after every row, those that the target chooses too, at positions ``shift`` off the right."""
    text, hidden, chosen = varied()
    head = load_head(assistants.target(), assistant_head(ASSISTANT), overrides=LAST).head
    assert isinstance(head, AssistantHead)
    head._shift += shift
    rows = len(text) - 4
    drafts = head.forced(mx.array(text), hidden, 3)
    return np.stack([np.array(draft)[:rows] == chosen[1 + i : 1 + i + rows] for i, draft in enumerate(drafts)]).sum(0)


def test_acceptance_does_not_fade_with_the_text() -> None:
    """Forty windows long: what is a position off is worse in every quarter, on the very same rows."""
    text = varied()[0]
    assert len(set(text)) >= 25
    assert len({tuple(text[at : at + 4]) for at in range(len(text))}) > 90
    right = rights(0)
    quarters = [slice(len(right) * i // 4, len(right) * (i + 1) // 4) for i in range(4)]
    shares = [float(right[quarter].mean()) / 3 for quarter in quarters]
    assert min(shares) > 0.7 > 4 * CHANCE, shares
    assert shares[-1] > shares[0] - 0.05, shares
    for shift in (-1, 1, 3, 12, 24):
        wrong = rights(shift)
        leads = [lead(right[quarter], wrong[quarter]) for quarter in quarters]
        assert min(leads) > 3.0, (shift, leads)


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
    assert right.tokens == off.tokens == old.tokens == reference(SamplingSettings(), num_tokens)
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
