"""The Qwen MTP head against one made of transformers' own layers, over the same trunk."""

import itertools
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from tiny_checkpoints import Tensors, save, split_experts, torch_model
from tiny_heads import (
    RecordingSampler,
    TorchHead,
    TorchHidden,
    metadata,
    torch_hidden,
    write_sidecar,
)
from tiny_models import assert_close, random_tokens

from skulk_core.heads import qwen_mtp
from skulk_core.heads.base import DraftHead
from skulk_core.heads.files import own_head, sidecar_head
from skulk_core.heads.loading import LoadedHead, load_head
from skulk_core.heads.qwen_mtp import QwenMtpHead
from skulk_core.models import dense_layout
from skulk_core.models.base import Hidden
from skulk_core.models.dense_layout import Order
from skulk_core.models.loading import LoadedModel, load, outline
from skulk_core.runtime.resources import demo_folder, demo_sidecar
from skulk_core.sampling.base import Place
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap

# pairs observed at a time: a prompt in two chunks, then rounds that accepted 0 to 4 drafts
CHUNKS = (20, 9, 1, 3, 1, 5)
TEXT_ROWS = sum(CHUNKS) + 1
RELEASED = Conventions(1.0, ConcatOrder.EMBEDDING_FIRST, HiddenTap.POST_NORM, ChainTap.POST_NORM)
WIRINGS = [
    Conventions(offset, order, hidden_tap, chain_tap)
    for offset, order, hidden_tap, chain_tap in itertools.product((0.0, 1.0), ConcatOrder, HiddenTap, ChainTap)
]


@dataclass(frozen=True)
class Oracle:
    """A trunk and a head by transformers, a text, and what the trunk says of it."""

    trunk: Any
    head: TorchHead
    text: mx.array
    hidden: TorchHidden

    def draft(self, pairs: int, depth: int, conventions: Conventions) -> tuple[list[int], np.ndarray]:
        """What the head drafts after the first ``pairs`` pairs of the text."""
        tokens = torch.tensor(self.text[1 : pairs + 1].tolist())
        return self.head.draft(self.hidden.first(pairs), tokens, depth, conventions)


@cache
def oracle(family: str) -> Oracle:
    trunk, text = torch_model(family, seed=3), random_tokens(TEXT_ROWS, seed=4)
    return Oracle(trunk, TorchHead(trunk), text, torch_hidden(trunk, torch.tensor(text.tolist())))


@pytest.fixture(scope="session")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    families = ("qwen3_5", "qwen3_5_moe", "qwen3_next", "llama")
    return {family: load(save(oracle(family).trunk, tmp_path_factory.mktemp(family)), "float32") for family in families}


def hidden_of(model: LoadedModel, text: mx.array) -> Hidden:
    target = model.target
    return target.hidden(target.run(target.embed(text, 0), target.make_caches()))


def check_drafts(head: DraftHead, model: LoadedModel, expected: Oracle, conventions: Conventions) -> None:
    """Read the text chunk by chunk and draft to every depth after each."""
    hidden, end = hidden_of(model, expected.text), 0
    for rows in CHUNKS:
        start, end = end, end + rows
        if start == 0:
            head.ingest(hidden.rows(start, end), expected.text[start + 1 : end + 1])
        else:
            # two more pairs than hold, as in a round whose drafts were refused
            seen = min(end + 2, len(expected.text) - 1)
            head.observe(hidden.rows(start, seen), expected.text[start + 1 : seen + 1])
            head.commit(rows)
        tokens, logits = expected.draft(end, 4, conventions)
        for depth in (1, 4, 2, 3):
            sampler = RecordingSampler()
            draft = head.draft(depth, sampler, Place(0))
            assert_close(mx.stack(sampler.logits), logits[:depth])
            assert draft.tokens.tolist() == tokens[:depth]
            assert draft.probs is None


def settled(head: LoadedHead) -> tuple[Conventions, str]:
    return head.conventions, head.conventions_from


@pytest.mark.parametrize("tabulated", [True, False], ids=["small vocabulary", "large vocabulary"])
@pytest.mark.parametrize(
    "conventions", WIRINGS, ids=lambda c: f"{c.norm_offset}-{c.concat_order}-{c.hidden_tap}-{c.chain_tap}"
)
def test_every_wiring_drafts_what_the_oracle_drafts(
    conventions: Conventions,
    tabulated: bool,
    trunks: dict[str, LoadedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the head guesses, and speculation costs time instead of saving it."""
    if not tabulated:
        monkeypatch.setattr(qwen_mtp, "_LARGEST_TABLE", 0)
    expected, model = oracle("qwen3_5"), trunks["qwen3_5"]
    tensors = expected.head.tensors(conventions.norm_offset)
    file = write_sidecar(tmp_path / "mtp.safetensors", tensors, metadata(expected.trunk, conventions))
    head = load_head(model, sidecar_head(file))
    assert settled(head) == (conventions, "sidecar metadata")
    check_drafts(head.head, model, expected, conventions)
    assert isinstance(head.head, QwenMtpHead)
    assert head.head._entering.is_tabulated == (tabulated and mx.default_device() == mx.cpu)


@pytest.mark.skipif(mx.default_device() != mx.cpu, reason="tables are for CPUs")
@pytest.mark.parametrize(
    ("order", "precision", "is_tabulated"),
    [(Order.TILED, "trunk", True), (Order.TRANSPOSED, "trunk", True), (Order.AS_STORED, "8bit", False)],
)
def test_what_a_small_head_works_out_beforehand(
    order: Order, precision: str, is_tabulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's drafts with the table and without; a head that is quantised has none."""
    monkeypatch.setattr(dense_layout, "best_order", lambda: order)
    model, drafted = load(demo_folder(), "float32"), []
    text = mx.array(model.tokenizer.encode("A list of names"), mx.int32)
    for largest in (qwen_mtp._LARGEST_TABLE, 0):
        monkeypatch.setattr(qwen_mtp, "_LARGEST_TABLE", largest)
        head = load_head(model, sidecar_head(demo_sidecar()), precision=precision).head
        assert isinstance(head, QwenMtpHead)
        head.ingest(hidden_of(model, text).rows(0, text.shape[0] - 1), text[1:])
        sampler = RecordingSampler()
        head.draft(4, sampler, Place(0))
        drafted.append(mx.stack(sampler.logits))
        assert head._entering.is_tabulated == (is_tabulated and largest > 0)
    assert_close(*drafted, 1e-3)


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe", "qwen3_next"])
@pytest.mark.parametrize("experts", ["fused", "one tensor each"])
def test_a_sidecar_of_another_publisher_is_wired_as_released(
    family: str, experts: str, trunks: dict[str, LoadedModel], tmp_path: Path
) -> None:
    """Otherwise the sidecars that are out there, none with our metadata, draft nothing that is accepted."""
    expected, model = oracle(family), trunks[family]
    tensors = expected.head.tensors()
    if experts == "one tensor each":
        tensors = split_experts(tensors)
    head = load_head(model, sidecar_head(write_sidecar(tmp_path / "mtp.safetensors", tensors)))
    assert settled(head) == (RELEASED, "this family's releases")
    assert head.nbytes == sum(tensor.numel() * 4 for tensor in tensors.values())
    check_drafts(head.head, model, expected, RELEASED)


@pytest.mark.parametrize("norm_offset", [0.0, 1.0])
def test_a_head_of_a_plain_trunk_drafts_what_the_oracle_drafts(
    norm_offset: float, trunks: dict[str, LoadedModel], tmp_path: Path
) -> None:
    """Otherwise a head that somebody trained for a llama is of no use."""
    expected, model = oracle("llama"), trunks["llama"]
    conventions = Conventions(norm_offset, hidden_tap=HiddenTap.PRE_NORM, chain_tap=ChainTap.PRE_NORM)
    file = write_sidecar(
        tmp_path / "mtp.safetensors", expected.head.tensors(norm_offset), metadata(expected.trunk, conventions)
    )
    check_drafts(load_head(model, sidecar_head(file)).head, model, expected, conventions)


def test_options_win_over_metadata(trunks: dict[str, LoadedModel], tmp_path: Path) -> None:
    """Otherwise a sidecar with a wrong word in it cannot be used at all."""
    expected, model = oracle("qwen3_5"), trunks["qwen3_5"]
    wrong = replace(RELEASED, concat_order=ConcatOrder.HIDDEN_FIRST)
    file = write_sidecar(tmp_path / "mtp.safetensors", expected.head.tensors(), metadata(expected.trunk, wrong))
    head = load_head(model, sidecar_head(file), overrides={"concat_order": ConcatOrder.EMBEDDING_FIRST})
    assert settled(head) == (RELEASED, "sidecar metadata; concat_order by option")
    check_drafts(head.head, model, expected, RELEASED)


def test_what_was_drafted_leaves_no_trace(trunks: dict[str, LoadedModel], tmp_path: Path) -> None:
    """Otherwise every refused draft shifts the head's memory and acceptance fades as the text grows."""
    expected, model = oracle("qwen3_5"), trunks["qwen3_5"]
    files = sidecar_head(write_sidecar(tmp_path / "mtp.safetensors", expected.head.tensors()))
    drafting, silent = load_head(model, files).head, load_head(model, files).head
    hidden, end = hidden_of(model, expected.text), 0
    for rows in CHUNKS:
        start, end = end, end + rows
        for head in (drafting, silent):
            head.ingest(hidden.rows(start, end), expected.text[start + 1 : end + 1])
        drafting.draft(1 + rows % 4, RecordingSampler(), Place(0))
    samplers = RecordingSampler(), RecordingSampler()
    for head, sampler in zip((drafting, silent), samplers, strict=True):
        head.draft(4, sampler, Place(0))
    assert np.array_equal(*(np.array(mx.stack(sampler.logits)) for sampler in samplers))


def test_a_new_text_begins_with_nothing(trunks: dict[str, LoadedModel], tmp_path: Path) -> None:
    """Otherwise a second request drafts from the first one's text."""
    expected, model = oracle("qwen3_5"), trunks["qwen3_5"]
    head = load_head(model, sidecar_head(write_sidecar(tmp_path / "mtp.safetensors", expected.head.tensors()))).head
    hidden = hidden_of(model, expected.text)
    head.ingest(hidden.rows(3, 30), expected.text[4:31])
    head.draft(2, RecordingSampler(), Place(0))
    head.reset()
    assert head.arrays() == []
    with pytest.raises(AssertionError, match="nothing read"):
        head.draft(1, RecordingSampler(), Place(0))
    check_drafts(head, model, expected, RELEASED)


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe", "qwen3_next"])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_head_in_a_released_checkpoint_is_found(family: str, shards: int, tmp_path: Path) -> None:
    """Otherwise models that come with their head are decoded without it."""
    expected = oracle(family)
    tensors = expected.head.tensors()
    more = split_experts(tensors) if family == "qwen3_next" else tensors
    model = load(save(expected.trunk, tmp_path, shards=shards, more=more), "float32")
    files = own_head(model.headers)
    assert files is not None
    assert set(files.names) == set(more)
    head = load_head(model, files)
    assert settled(head) == (RELEASED, "this family's releases")
    check_drafts(head.head, model, expected, RELEASED)


@pytest.mark.parametrize("prefix", ["", "model.language_model.", "language_model."])
def test_the_head_in_a_multimodal_checkpoint_is_found(prefix: str, tmp_path: Path) -> None:
    """Otherwise the released Qwen3.5 checkpoints, all of them multimodal, are decoded without their head."""
    expected = oracle("qwen3_5")
    more = {prefix + name: tensor for name, tensor in expected.head.tensors().items()}
    model = load(save(expected.trunk, tmp_path, nested=True, more=more), "float32")
    files = own_head(model.headers)
    assert files is not None
    assert set(files.names) == set(more)
    check_drafts(load_head(model, files).head, model, expected, RELEASED)


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe"])
def test_the_head_in_a_converted_checkpoint_has_its_offset_in_it(
    family: str, trunks: dict[str, LoadedModel], tmp_path: Path
) -> None:
    """Otherwise a head that was converted with its model has one too many added to every norm."""
    expected = oracle(family)
    model = load(save_converted(trunks[family], expected.head.tensors(norm_offset=0.0), tmp_path), "float32")
    files = own_head(model.headers)
    assert files is not None
    head = load_head(model, files)
    assert settled(head) == (replace(RELEASED, norm_offset=0.0), "this family's releases")
    check_drafts(head.head, model, expected, RELEASED)


def save_converted(model: LoadedModel, head: Tensors, folder: Path) -> Path:
    """Trunk and head as mlx-lm's converter writes weights: its names, its axes, the norms' one added."""
    # as the files name them: what was read may be stored otherwise
    arrays = dict(tree_flatten(outline(model.headers.folder, "float32").target.model.parameters()))
    for name, tensor in head.items():
        array, name = mx.array(tensor.numpy()), f"language_model.{name}"
        if name.endswith("experts.gate_up_proj"):
            for part, half in zip(("gate_proj", "up_proj"), mx.split(array, 2, axis=1), strict=True):
                arrays[name.replace("experts.gate_up_proj", f"switch_mlp.{part}.weight")] = half
        else:
            arrays[name.replace("experts.down_proj", "switch_mlp.down_proj.weight")] = array
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    for file in model.headers.folder.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    assert "model_type" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return folder


def test_a_checkpoint_without_a_head_has_none(trunks: dict[str, LoadedModel]) -> None:
    """Otherwise a plain model is refused for a head it never had."""
    assert own_head(trunks["qwen3_5"].headers) is None
