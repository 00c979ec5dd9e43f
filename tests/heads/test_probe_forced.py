"""The probe reads a text in one pass a position; drafting reads it pair by pair. Both must draft the same."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gemma4_tiny
import mlx.core as mx
import pytest
import torch
from tiny_checkpoints import save, torch_model
from tiny_heads import TorchHead, metadata, write_sidecar
from tiny_models import random_tokens

from skulk_core.heads.base import WiredHead
from skulk_core.heads.files import assistant_head, sidecar_head
from skulk_core.heads.loading import load_head
from skulk_core.models.base import Hidden, Target
from skulk_core.models.loading import LoadedModel, load
from skulk_core.sampling.base import Place
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

DEPTH = 3
TEXT = random_tokens(13, seed=4)
NEXT = TEXT[1:]
WIRINGS = [
    Conventions(offset, order, hidden_tap, chain_tap)
    for offset, order, hidden_tap, chain_tap in itertools.product((0.0, 1.0), ConcatOrder, HiddenTap, ChainTap)
]


@dataclass(frozen=True)
class Tiny:
    trunk: Any
    head: TorchHead
    model: LoadedModel

    def wired(self, conventions: Conventions, folder: Path) -> WiredHead:
        tensors = {name: torch.clone(tensor) for name, tensor in self.head.tensors().items()}
        file = write_sidecar(folder / "mtp.safetensors", tensors, metadata(self.trunk, conventions))
        head = load_head(self.model, sidecar_head(file)).head
        assert isinstance(head, WiredHead)
        return head

    @property
    def hidden(self) -> Hidden:
        target = self.model.target
        return target.hidden(target.run(target.embed(TEXT[:-1], 0), target.make_caches()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def make(family: str) -> Tiny:
        trunk = torch_model(family, seed=3)
        return Tiny(trunk, TorchHead(trunk), load(save(trunk, tmp_path_factory.mktemp(family)), "float32"))

    return make


class Told(GreedySampler):
    """Keeps what would have been drafted, and goes on with the tokens that came."""

    def __init__(self, came: Sequence[int]) -> None:
        super().__init__()
        self._came, self.drafted = came, []

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        self.drafted.append(int(mx.argmax(logits[0]).item()))
        return mx.array([self._came[len(drafted)]]), None


def one_by_one(head: WiredHead, target: Target, text: mx.array) -> list[list[int]]:
    """Drafts after each pair, position by position, by the calls that decoding makes."""
    drafts: list[list[int]] = [[] for _ in range(DEPTH)]
    tokens = text[1:].tolist()
    for pair in range(len(tokens)):
        caches = target.make_caches()
        head.read_from(caches)
        head.reset()
        hidden = target.hidden(target.run_and_commit(target.embed(text[: pair + 1], 0), caches))
        head.ingest(hidden, text[1 : pair + 2])
        told = Told([*tokens[pair + 1 :], 0])
        head.draft(min(DEPTH, len(tokens) - pair), told, Place(0))
        for position, token in enumerate(told.drafted):
            drafts[position].append(token)
    return drafts


def check(tiny: Tiny, conventions: Conventions, folder: Path) -> list[list[int]]:
    head, hidden = tiny.wired(conventions, folder), tiny.hidden
    forced = [draft.tolist() for draft in head.forced(TEXT, hidden, DEPTH)]
    assert forced == one_by_one(head, tiny.model.target, TEXT)
    return forced


def test_every_wiring_is_measured_as_it_would_draft(tiny: Any, tmp_path: Path) -> None:
    """Otherwise the probe praises conventions that decoding then does not have, at any position."""
    drafts = [check(tiny("qwen3_5"), conventions, tmp_path) for conventions in WIRINGS]
    first, second = ({str(draft[position]) for draft in drafts} for position in (0, 1))
    assert (len(first), len(second)) == (8, 16)


@pytest.mark.parametrize("family", ["qwen3_5_moe", "qwen3_next", "llama"])
def test_heads_on_other_trunks_are_measured_as_they_would_draft(family: str, tiny: Any, tmp_path: Path) -> None:
    """Otherwise a head that somebody trained for another family is wired by chance."""
    check(tiny(family), WIRINGS[5], tmp_path)


@pytest.mark.parametrize(("size", "ordered"), [("E2B", True), ("26B-A4B", False), ("31B", True)])
def test_an_assistant_is_measured_as_it_would_draft(size: str, ordered: bool, tmp_path: Path) -> None:
    """Both position rules, on a text that its sliding layers no longer see whole."""
    trunk = gemma4_tiny.torch_target(size, sliding_window=5)
    model = load(gemma4_tiny.save_target(trunk, tmp_path / "target"), "float32")
    gemma4_tiny.save_assistant(gemma4_tiny.torch_assistant(trunk, ordered=ordered), tmp_path / "assistant")
    hidden = model.target.hidden(model.target.run(model.target.embed(TEXT[:-1], 0), model.target.make_caches()))
    seen = []
    for rule in (PositionRule.LAST_COMMITTED, PositionRule.BEFORE_LAST):
        files = assistant_head(tmp_path / "assistant")
        head = load_head(model, files, overrides={"position_rule": rule}).head
        assert isinstance(head, WiredHead)
        seen.append([draft.tolist() for draft in head.forced(TEXT, hidden, DEPTH)])
        assert seen[-1] == one_by_one(head, model.target, TEXT)
    assert seen[0] != seen[1]


def test_what_was_forced_leaves_no_trace(tiny: Any, tmp_path: Path) -> None:
    """Otherwise a head that was measured goes on from a text that nobody asked for."""
    head, hidden = tiny("qwen3_5").wired(WIRINGS[0], tmp_path), tiny("qwen3_5").hidden
    head.ingest(hidden.rows(0, 5), NEXT[:5])
    before = head.draft(3, GreedySampler(), Place(0)).tokens.tolist()
    mx.eval(head.forced(TEXT, hidden, 2))
    assert head.draft(3, GreedySampler(), Place(0)).tokens.tolist() == before
