"""Checkpoints as upstream releases them, loaded and compared with transformers."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from tiny_checkpoints import save, torch_model, write_tensors
from tiny_models import VOCAB, assert_close, random_tokens

from skulk_core.errors import FileError, OptionError, UnsupportedModel
from skulk_core.models.base import Target
from skulk_core.models.loading import LoadedModel, load
from skulk_core.types import LayerRange

TEXT_ROWS = 70


def logits_of(target: Target, text: mx.array) -> mx.array:
    """Logits of ``text`` in a prefill of most of it and verify passes of the rest."""
    caches, out = target.make_caches(), []
    for start, end in [(0, 50), (50, 51), (51, 55), (55, 64), (64, TEXT_ROWS)]:
        ran = target.run(target.embed(text[start:end], start), caches)
        out.append(target.logits(target.hidden(ran).post_norm))
        caches.commit(end - start)
    return mx.concatenate(out)


@torch.no_grad()
def oracle(model: Any, text: mx.array) -> Any:
    return model(torch.tensor(text.tolist())[None]).logits[0].numpy()


@pytest.mark.parametrize(
    ("family", "tied", "nested", "shards"),
    [
        ("qwen3_5", False, False, 1),
        ("qwen3_5", True, False, 3),
        ("qwen3_5", False, True, 1),
        ("qwen3_5", True, True, 3),
        ("qwen3_5_moe", False, False, 3),
        ("qwen3_5_moe", False, True, 1),
        ("qwen3_next", False, False, 3),
        ("llama", True, False, 1),
    ],
)
def test_a_released_checkpoint_gives_transformers_logits(
    family: str, tied: bool, nested: bool, shards: int, tmp_path: Path
) -> None:
    """Otherwise the model a user downloads is not the model its makers released."""
    model, text = torch_model(family, tied=tied), random_tokens(TEXT_ROWS, seed=1)
    loaded = load(save(model, tmp_path, shards=shards, nested=nested), "float32")
    assert_close(logits_of(loaded.target, text), oracle(model, text))
    assert loaded.context_tokens == 512
    assert loaded.tokenizer.eos_token_ids == {1}
    assert (loaded.target.vocab_size, loaded.target.hidden_size, loaded.target.num_layers) == (VOCAB, 64, 4)


def test_a_text_part_saved_alone_is_the_whole_to_mlx_lm(tmp_path: Path) -> None:
    """Transformers saves such fine-tunes as `qwen3_5_text`, a type that mlx-lm does not know."""
    model, text = torch_model("qwen3_5"), random_tokens(TEXT_ROWS, seed=1)
    folder = save(model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_5_text"}))
    assert_close(logits_of(load(folder, "float32").target, text), oracle(model, text))


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_next"])
def test_stages_loaded_apart_are_the_whole(family: str, tmp_path: Path) -> None:
    """Otherwise two hosts that each load their part do not make the model."""
    model, text = torch_model(family), random_tokens(30, seed=2)
    folder = save(model, tmp_path, shards=3)
    stages = [load(folder, "float32", LayerRange(*ends)) for ends in ((0, 3), (3, 4))]
    activations = stages[0].target.embed(text, 0)
    for stage in stages:
        activations = stage.target.run(activations, stage.target.make_caches())
    last = stages[-1].target
    assert_close(last.logits(last.hidden(activations).post_norm), oracle(model, text))
    whole = load(folder, "float32")
    shared = whole.target.text_model.model.embed_tokens.weight.nbytes
    assert sum(stage.nbytes for stage in stages) == whole.nbytes + shared


def test_the_dtype_is_the_file_s_unless_another_is_asked_for(tmp_path: Path) -> None:
    """Otherwise a model takes twice the memory that was planned, or computes in less than was asked for."""
    folder = save(torch_model("qwen3_5").to(torch.bfloat16), tmp_path)
    assert load(folder).target.dtype == mx.bfloat16
    assert load(folder, "float32").target.dtype == mx.float32
    with pytest.raises(OptionError, match="float8"):
        load(folder, "float8")


def test_decays_keep_their_dtype_when_the_rest_is_cast(tmp_path: Path) -> None:
    """Otherwise bfloat16 decays are off by a percent a row, and the state forgets at the wrong speed."""
    loaded = load(save(torch_model("qwen3_5"), tmp_path), "bfloat16")
    linear = loaded.target.layers[0].linear_attn
    assert linear.A_log.dtype == mx.float32
    assert linear.out_proj.weight.dtype == mx.bfloat16


def test_a_checkpoint_that_lacks_weights_is_refused_in_a_few_words(tmp_path: Path) -> None:
    """Otherwise missing layers decode as random ones, or the message fills the terminal."""
    model = torch_model("llama")
    folder = save(model, tmp_path)
    write_tensors(folder, {name: x for name, x in model.state_dict().items() if "mlp" not in name}, 1)
    with pytest.raises(FileError, match="Missing 12 parameters") as caught:
        load(folder)
    assert len(str(caught.value)) < 600
    assert caught.value.path == folder


def test_a_type_that_mlx_lm_does_not_know_is_named(tmp_path: Path) -> None:
    """Otherwise the user is told about a file when it is the model that is not supported."""
    folder = save(torch_model("llama"), tmp_path)
    config = folder / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"llama"', '"gpt9"'), encoding="utf-8")
    with pytest.raises(UnsupportedModel, match="gpt9"):
        load(folder)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_folder_without_a_usable_configuration_is_named(content: str | None, tmp_path: Path) -> None:
    """Otherwise a wrong path shows as a traceback."""
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(FileError) as caught:
        load(tmp_path)
    assert caught.value.path == file


def test_what_a_model_holds_is_counted(tmp_path: Path) -> None:
    """Otherwise memory is planned with a wrong number."""
    model = torch_model("llama")
    loaded: LoadedModel = load(save(model, tmp_path), "float32")
    assert loaded.nbytes == sum(x.numel() * 4 for x in model.parameters())
    assert loaded.quantization is None
