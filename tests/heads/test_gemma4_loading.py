"""Assistants as they are found on disk: released, saved again, packed; and those that belong to another model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from assistants import ASSISTANT, TARGET, assistant, target
from demo import demo
from gemma4_tiny import VOCAB, save_assistant, save_target, torch_assistant, torch_target
from tiny_heads import RecordingSampler

from skulk_core.errors import FileError, OptionError, SidecarError
from skulk_core.heads import gemma4_assistant
from skulk_core.heads.files import assistant_head, head_in
from skulk_core.heads.loading import LoadedHead, load_head, resolve_precision
from skulk_core.hub.refs import FolderRef, parse_sidecar
from skulk_core.models.loading import LoadedModel, load
from skulk_core.sampling.base import Place
from skulk_core.types import ConcatOrder, PositionRule

LAST = {"position_rule": PositionRule.LAST_COMMITTED}
Change = Callable[[dict[str, Any]], object]
ArraysChange = Callable[[dict[str, mx.array]], object]


@pytest.fixture(scope="module")
def trunk() -> Any:
    return torch_target("31B", seed=2)


@pytest.fixture(scope="module")
def model(trunk: Any, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(save_target(trunk, tmp_path_factory.mktemp("target")), "float32")


def draft_logits(model: LoadedModel, loaded: LoadedHead) -> np.ndarray:
    """Logits of three drafts after a text."""
    caches = model.target.make_caches()
    text = mx.array(np.random.default_rng(1).integers(3, VOCAB, 40).astype(np.int32))
    loaded.head.read_from(caches)
    loaded.head.reset()
    hidden = model.target.hidden(model.target.run_and_commit(model.target.embed(text[:-1], 0), caches))
    loaded.head.ingest(hidden, text[1:])
    sampler = RecordingSampler()
    loaded.head.draft(3, sampler, Place(0))
    return np.array(mx.stack(sampler.logits).astype(mx.float32))


def folder_with(folder: Path, *, tensors: ArraysChange = dict, config: Change = dict) -> Path:
    """The trained assistant with its tensors or configuration changed in place."""
    arrays = mx.load(str(ASSISTANT / "model.safetensors"))
    assert isinstance(arrays, dict)
    said = json.loads((ASSISTANT / "config.json").read_text())
    tensors(arrays)
    config(said)
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("ordered", [False, True])
def test_a_packed_assistant_drafts_what_its_weights_say(
    ordered: bool, trunk: Any, model: LoadedModel, tmp_path: Path
) -> None:
    """Repackagings for MLX hold packed matrices, some under the names of a multimodal model."""
    tiny = torch_assistant(trunk, ordered=ordered)
    arrays = mx.load(str(save_assistant(tiny, tmp_path / "a") / "model.safetensors"))
    assert isinstance(arrays, dict)
    packed, unpacked = {}, {}
    for name, array in arrays.items():
        if array.ndim == 2 and array.shape[-1] % 32 == 0 and "centroids" not in name:
            parts = mx.quantize(array, 32, 8)
            stem = f"language_model.{name.removesuffix('.weight')}"
            packed |= {f"{stem}.{kind}": part for kind, part in zip(("weight", "scales", "biases"), parts, strict=True)}
            unpacked[name] = mx.dequantize(*parts, 32, 8)
        else:
            packed[f"language_model.{name}"] = unpacked[name] = array
    logits = []
    for tensors in (packed, unpacked):
        mx.save_safetensors(str(tmp_path / "a" / "model.safetensors"), tensors, {"format": "mlx"})
        loaded = load_head(model, assistant_head(tmp_path / "a"), precision="float32", overrides=LAST)
        logits.append(draft_logits(model, loaded))
    # tokens that were not scored have -inf
    assert np.allclose(*logits, atol=1e-3)


@pytest.mark.parametrize("num_tokens", [VOCAB - 16, VOCAB + 16])
def test_vocabularies_of_two_sizes(num_tokens: int, trunk: Any, model: LoadedModel, tmp_path: Path) -> None:
    """One of the two was padded: a draft is always a token of the target."""
    tiny = torch_assistant(trunk, vocab_size=num_tokens)
    loaded = load_head(model, assistant_head(save_assistant(tiny, tmp_path / "a")), overrides=LAST)
    logits = draft_logits(model, loaded)
    assert logits.shape == (3, VOCAB)
    assert np.isfinite(logits).sum(axis=-1).tolist() == [min(VOCAB, num_tokens)] * 3


def test_an_lm_head_of_its_own_counts(tmp_path: Path) -> None:
    """A fine-tune may have untied it; drafting with the embedding would be drafting nonsense."""

    def untie(arrays: dict[str, mx.array]) -> None:
        arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"]
        arrays["model.embed_tokens.weight"] = mx.zeros_like(arrays["lm_head.weight"])

    untied = load_head(target(), assistant_head(folder_with(tmp_path / "a", tensors=untie)), overrides=LAST)
    assert np.array_equal(draft_logits(target(), untied), draft_logits(target(), assistant()))


# by precision: greatest error of the first draft's weights of tokens, the greatest being 1
LOSSES = {"auto": 1e-6, "trunk": 1e-6, "float32": 1e-6, "bfloat16": 0.1, "8bit": 0.1, "4bit": 1.0}


def test_every_precision_drafts_but_float16(trunk: Any, model: LoadedModel, tmp_path: Path) -> None:
    """Otherwise the setting that makes it fast on one machine breaks it on another."""
    for ordered in (False, True):
        tiny = torch_assistant(trunk, ordered=ordered, hidden_size=64)
        files = assistant_head(save_assistant(tiny, tmp_path / f"{ordered}"))
        heads = {name: load_head(model, files, precision=name, overrides=LAST) for name in LOSSES}
        exact = np.exp(draft_logits(model, heads["float32"])[0])
        for name, loaded in heads.items():
            error = np.abs(np.exp(draft_logits(model, loaded)[0]) - exact).max() / exact.max()
            assert error <= LOSSES[name], (ordered, name, error)
        assert heads["bfloat16"].nbytes < 0.6 * heads["float32"].nbytes
        assert heads["4bit"].nbytes < heads["8bit"].nbytes < heads["bfloat16"].nbytes
    with pytest.raises(OptionError, match="--head-precision float16: .* bfloat16"):
        load_head(model, files, precision="float16", overrides=LAST)


def test_beside_a_target_in_float16_an_assistant_is_not(model: LoadedModel) -> None:
    """A packed target may compute in it; the assistant's activations would leave its range."""
    half = replace(model, target=_InFloat16(model.target))  # type: ignore[arg-type]
    layout = gemma4_assistant.LAYOUT
    assert [resolve_precision(half, name, layout) for name in ("auto", "trunk")] == ["bfloat16"] * 2
    packed = replace(half, config={"quantization": {"group_size": 64, "bits": 4}})
    assert resolve_precision(packed, "auto", layout) == "bfloat16"


class _InFloat16:
    """A target whose activations are in float16."""

    dtype = mx.float16

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def set_to(*path: str, value: object) -> Change:
    """A change of one key of a configuration."""

    def change(config: dict[str, Any]) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


OTHERS = {
    "another-width": (set_to("backbone_hidden_size", value=96), "hidden_size 96; this one has 64"),
    "another-head-size": (set_to("text_config", "head_dim", value=32), "sliding_attention heads of size 32; .* has 16"),
    "another-full-head": (
        set_to("text_config", "global_head_dim", value=64),
        "full_attention heads of size 64; this one has 32",
    ),
    "a-wider-window": (set_to("text_config", "sliding_window", value=25), "sliding_window 25; this one has 24"),
    "another-number-of-heads": (set_to("text_config", "num_attention_heads", value=3), "3 query heads .* 2 of K/V"),
    "no-text-config": (lambda config: config.pop("text_config"), "no text_config"),
    "no-size": (set_to("num_centroids", value=0), "num_centroids is 0, not a size"),
    "no-layers": (set_to("text_config", "layer_types", value=["full_attention"]), "layer_types"),
    "no-clusters": (
        lambda config: config.update(use_ordered_embeddings=True, num_centroids=13),
        "13 centroids cannot share 112 tokens",
    ),
    "no-rope-known-here": (
        set_to("text_config", "rope_parameters", "full_attention", "rope_type", value="spiral"),
        "config.json: .*spiral",
    ),
    "with-experts": (set_to("text_config", "enable_moe_block", value=True), "experts"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_assistant_of_another_model_is_refused_by_what_differs(name: str, tmp_path: Path) -> None:
    """Otherwise it drafts noise, or ends in a traceback of MLX."""
    change, said = OTHERS[name]
    with pytest.raises(SidecarError, match=said) as caught:
        load_head(target(), assistant_head(folder_with(tmp_path / "a", config=change)), overrides=LAST)
    assert caught.value.path == tmp_path / "a"


def test_a_target_without_a_kind_of_layer_is_refused(tmp_path: Path) -> None:
    """A cut or unusual checkpoint; otherwise a KeyError while the first draft is made."""
    full = torch_target("31B", layer_types=["full_attention"] * 2, num_hidden_layers=2)
    model = load(save_target(full, tmp_path / "target"), "float32")
    tiny = save_assistant(torch_assistant(torch_target("31B")), tmp_path / "assistant")
    with pytest.raises(SidecarError, match="of sliding_attention layers, of which this model has none"):
        load_head(model, assistant_head(tiny), overrides=LAST)


def test_another_kind_of_target_has_nothing_to_read(tmp_path: Path) -> None:
    """Otherwise an assistant that was chosen for a Qwen ends in a traceback."""
    with pytest.raises(SidecarError, match="of a Gemma 4 model, which this one is not"):
        load_head(demo(), assistant_head(ASSISTANT), overrides=LAST)


BROKEN = {
    "missing": (lambda arrays: arrays.pop("post_projection.weight"), r"lacks post_projection\.weight"),
    "surplus": (lambda arrays: arrays.update({"model.layers.9.layer_scalar": mx.ones((1,))}), r"does not: layers\.9"),
    "resized": (lambda arrays: arrays.update({"model.norm.weight": mx.ones((7,))}), r"norm\.weight is \[7\]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_assistant_is_told_by_tensor(name: str, tmp_path: Path) -> None:
    """Otherwise a part of it stays random and nothing it drafts is accepted."""
    change, said = BROKEN[name]
    with pytest.raises(SidecarError, match=said):
        load_head(target(), assistant_head(folder_with(tmp_path / "a", tensors=change)), overrides=LAST)


@pytest.mark.parametrize("ordering", [torch.zeros(VOCAB, dtype=torch.int64), torch.arange(VOCAB).float()])
def test_an_order_that_is_none_is_refused(
    ordering: torch.Tensor, trunk: Any, model: LoadedModel, tmp_path: Path
) -> None:
    """A buffer never filled: every cluster would hold the same token. Or one cast with the weights."""
    tiny = torch_assistant(trunk, ordered=True)
    tiny.masked_embedding.token_ordering = torch.nn.Buffer(ordering)
    with pytest.raises(SidecarError, match="token_ordering is not an order of its 112 tokens"):
        load_head(model, assistant_head(save_assistant(tiny, tmp_path / "a")), overrides=LAST)


def test_a_word_that_means_nothing_here_is_refused(model: LoadedModel) -> None:
    """Otherwise a person who follows a recipe for another head believes that it was followed."""
    for changes in ({"position_rule": PositionRule.RUNNING}, {"concat_order": ConcatOrder.HIDDEN_FIRST}):
        with pytest.raises(SidecarError, match="gemma4_assistant heads have"):
            load_head(target(), assistant_head(ASSISTANT), overrides=changes)


def test_an_assistants_folder_is_a_sidecar() -> None:
    """Its folder is what a person gives, as of a sidecar."""
    assert parse_sidecar(str(ASSISTANT)) == FolderRef(ASSISTANT)
    assert head_in(ASSISTANT) == assistant_head(ASSISTANT)


def test_a_folder_that_is_no_head_is_told(tmp_path: Path) -> None:
    """A target given as --sidecar, or an empty folder."""
    with pytest.raises(SidecarError, match="model of type gemma4, and no draft head"):
        head_in(TARGET)
    with pytest.raises(FileError, match="no such file"):
        head_in(tmp_path)
