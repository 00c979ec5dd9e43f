"""Gemma 4's assistants draft what transformers' own draft from the same target, whatever its size and the text."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from gemma4_tiny import (
    CENTROIDS_LOOKED_INTO,
    NUM_CENTROIDS,
    SIZES,
    VOCAB,
    WINDOW,
    save_assistant,
    save_target,
    torch_assistant,
    torch_state,
    torch_target,
)
from tiny_heads import RecordingSampler

from skulk_core.cache.base import CacheList
from skulk_core.heads.base import DraftHead, WiredHead
from skulk_core.heads.files import assistant_head
from skulk_core.heads.loading import load_head
from skulk_core.models.base import Hidden
from skulk_core.models.loading import LoadedModel, load
from skulk_core.models.registry import make_target
from skulk_core.sampling.base import Place
from skulk_core.types import LayerRange, PositionRule

DEPTH = 4
# shorter than the window, at its edge, beyond it
LENGTHS = (5, WINDOW + 1, 3 * WINDOW)


@dataclass(frozen=True)
class Pair:
    """A target, transformers' and ours; both assistants of transformers' for it, plain and with centroids."""

    torch_target: Any
    model: LoadedModel
    assistants: dict[bool, Any]
    folder: Path

    def head(self, ordered: bool, rule: PositionRule) -> DraftHead:
        files = assistant_head(self.folder / f"assistant-{ordered}")
        return load_head(self.model, files, overrides={"position_rule": rule}).head


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def make(size: str) -> Pair:
        folder, trunk = tmp_path_factory.mktemp(size), torch_target(size, seed=1)
        assistants = {ordered: torch_assistant(trunk, ordered=ordered) for ordered in (False, True)}
        for ordered, assistant in assistants.items():
            # one as released and in shards, one as transformers saves it today
            save_assistant(
                assistant, folder / f"assistant-{ordered}", shards=1 + 2 * ordered, as_saved_by_5_23=not ordered
            )
        return Pair(trunk, load(save_target(trunk, folder / "target"), "float32"), assistants, folder)

    return make


@torch.no_grad()
def wanted(pair: Pair, ordered: bool, text: list[int], rule: PositionRule) -> tuple[list[int], np.ndarray]:
    """Drafts after ``text`` and their logits, by transformers, chained as its candidate generator chains them.

    Its generator counts the position of the token chosen last; the target has read all tokens but that one.
    """
    assistant, state = pair.assistants[ordered], torch_state(pair.torch_target, text[:-1])
    position = len(text) - 1 if rule is PositionRule.LAST_COMMITTED else len(text) - 2
    token, h = torch.tensor([[text[-1]]]), state.hidden[None, -1:]
    tokens, logits = [], []
    for _ in range(DEPTH):
        embedded = pair.torch_target.get_input_embeddings()(token)
        out = assistant(
            inputs_embeds=torch.cat([embedded, h], dim=-1),
            position_ids=torch.tensor([[position]]),
            shared_kv_states=state.shared_kv_states,
        )
        token, h = out.logits.argmax(dim=-1), out.last_hidden_state
        tokens.append(int(token))
        logits.append(out.logits[0, 0].numpy())
    return tokens, np.stack(logits)


def feed(model: LoadedModel, caches: CacheList, tokens: list[int]) -> Hidden:
    """Rows of a pass, not committed."""
    target = model.target
    return target.hidden(target.run(target.embed(mx.array(tokens), caches.rows), caches))


def check(head: DraftHead, expected: tuple[list[int], np.ndarray], depth: int = DEPTH) -> None:
    sampler = RecordingSampler()
    assert head.draft(depth, sampler, Place(0)).tokens.tolist() == expected[0][:depth]
    actual = np.array(mx.stack(sampler.logits))
    scored = np.isfinite(actual)
    # of tokens in clusters that were not looked into transformers says something else, and never drafts them
    assert np.abs(np.where(scored, actual - expected[1][:depth], 0.0)).max() < 1e-3
    assert set(scored.sum(axis=-1).tolist()) <= {VOCAB, VOCAB // NUM_CENTROIDS * CENTROIDS_LOOKED_INTO}


def text_of(length: int) -> list[int]:
    """A random text of so many rows and the token chosen last."""
    tokens: list[int] = np.random.default_rng(length).integers(3, VOCAB, length + 1).tolist()
    return tokens


@pytest.mark.parametrize("ordered", [False, True], ids=["plain", "centroids"])
@pytest.mark.parametrize("size", SIZES)
def test_drafts_are_those_of_transformers(size: str, ordered: bool, pair: Any) -> None:
    """The prompt came in two passes; otherwise what Google trained the assistant for is not what it is given here."""
    each: Pair = pair(size)
    for rule, lengths in ((PositionRule.LAST_COMMITTED, LENGTHS), (PositionRule.BEFORE_LAST, LENGTHS[-1:])):
        head = each.head(ordered, rule)
        for length in lengths:
            text, caches = text_of(length), each.model.target.make_caches()
            head.read_from(caches)
            head.reset()
            for start, end in ((0, length // 2), (length // 2, length)):
                hidden = feed(each.model, caches, text[start:end])
                caches.commit(end - start)
                head.ingest(hidden, mx.array(text[start + 1 : end + 1]))
            check(head, wanted(each, ordered, text, rule))


@pytest.mark.parametrize("ordered", [False, True], ids=["plain", "centroids"])
def test_an_assistant_with_a_window_of_its_own_sees_no_more(ordered: bool, pair: Any, tmp_path: Path) -> None:
    """Its mask in transformers goes by the assistant's window, which nothing says must be the target's."""
    of_31b: Pair = pair("31B")
    narrow = torch_assistant(of_31b.torch_target, ordered=ordered, sliding_window=WINDOW // 2)
    save_assistant(narrow, tmp_path / f"assistant-{ordered}")
    each = replace(of_31b, assistants={ordered: narrow}, folder=tmp_path)
    rule = PositionRule.LAST_COMMITTED
    head = each.head(ordered, rule)
    for length in (WINDOW // 2 + 1, 3 * WINDOW):
        text, caches = text_of(length), each.model.target.make_caches()
        head.read_from(caches)
        head.reset()
        hidden = feed(each.model, caches, text[:-1])
        caches.commit(length)
        head.ingest(hidden, mx.array(text[1:]))
        expected = wanted(each, ordered, text, rule)
        check(head, expected)
        assert isinstance(head, WiredHead)
        forced = head.forced(mx.array([*text, *expected[0]]), _with_more(each.model, text, expected[0]), DEPTH)
        assert [int(draft[length - 1]) for draft in forced] == expected[0]
        if length > WINDOW:
            unlike = wanted(of_31b, ordered, text, rule)[1] - expected[1]
            assert np.abs(unlike).max() > 1e-2


def _with_more(model: LoadedModel, text: list[int], drafts: list[int]) -> Hidden:
    """The target's rows of a text and drafts after it, but for the last."""
    return feed(model, model.target.make_caches(), [*text, *drafts][:-1])


@pytest.mark.parametrize("size", ["E2B", "26B-A4B"])
def test_drafts_after_refusals_are_those_of_transformers(size: str, pair: Any) -> None:
    """Verify passes of which a part is kept, until the text is twice the window: nothing refused may be seen again."""
    each: Pair = pair(size)
    rule = PositionRule.LAST_COMMITTED
    head, caches = each.head(False, rule), each.model.target.make_caches()
    text, rng = text_of(9), np.random.default_rng(0)
    head.read_from(caches)
    head.reset()
    head.ingest(feed(each.model, caches, text[:-1]), mx.array(text[1:]))
    caches.commit(9)
    while len(text) < 2 * WINDOW + 4:
        depth, kept = 1 + len(text) % DEPTH, 1 + len(text) % 3 % (1 + len(text) % DEPTH)
        check(head, wanted(each, False, text, rule), depth)
        window = [text[-1], *rng.integers(3, VOCAB, depth).tolist()]
        chosen = [*window[1:kept], *rng.integers(3, VOCAB, depth + 2 - kept).tolist()]
        head.observe(feed(each.model, caches, window), mx.array(chosen))
        head.commit(kept)
        caches.commit(kept)
        text += chosen[:kept]
    check(head, wanted(each, False, text, rule))


@pytest.mark.parametrize("size", ["E2B", "31B"])
def test_the_last_of_several_hosts_drafts_alike(size: str, pair: Any) -> None:
    """It holds the keys and values that an assistant reads, and nothing of the layers before its own."""
    each: Pair = pair(size)
    whole, rule = each.model.target, PositionRule.LAST_COMMITTED
    split = whole.split_points[-1]
    first = make_target(whole.model, LayerRange(0, split))
    last = make_target(whole.model, LayerRange(split, whole.num_layers))
    caches = first.make_caches(), last.make_caches()
    text = text_of(3 * WINDOW)
    entering = first.run_and_commit(first.embed(mx.array(text[:-1]), 0), caches[0])
    hidden = last.hidden(last.run_and_commit(entering, caches[1]))
    files = assistant_head(each.folder / "assistant-False")
    head = load_head(replace(each.model, target=last), files, overrides={"position_rule": rule}).head
    head.read_from(caches[1])
    head.reset()
    head.ingest(hidden, mx.array(text[1:]))
    check(head, wanted(each, False, text, rule))


def test_a_constant_position_is_seen(pair: Any) -> None:
    """The two rules must not come out alike here, or the tests above would hold for either."""
    each: Pair = pair("31B")
    text = text_of(3 * WINDOW)
    logits = [wanted(each, False, text, rule)[1] for rule in (PositionRule.LAST_COMMITTED, PositionRule.BEFORE_LAST)]
    assert np.abs(logits[0] - logits[1]).max() > 0.05
