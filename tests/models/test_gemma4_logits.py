"""Gemma 4 of every size against transformers and mlx-lm, from files as released and as saved again."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from gemma4_tiny import SIZES, VOCAB, WINDOW, save_target, torch_target
from mlx.utils import tree_flatten
from mlx_lm.convert import convert
from mlx_lm.utils import load_model
from safetensors.torch import load_file, save_file
from test_adapters import LENGTH, logits_in_passes
from tiny_models import assert_close, random_tokens, randomise, relative_error

from skulk_core.errors import FileError, OptionError
from skulk_core.models.base import Target
from skulk_core.models.loading import LoadedModel, load

TEXT = random_tokens(LENGTH, seed=1)


@cache
def oracle(size: str) -> Any:
    return torch_target(size)


@cache
def expected(size: str) -> np.ndarray:
    """Transformers' logits of the text."""
    with torch.no_grad():
        logits: np.ndarray = oracle(size)(torch.tensor(TEXT.tolist())[None]).logits[0].numpy()
    return logits


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_those_of_transformers_and_mlx_lm(size: str, tmp_path: Path) -> None:
    """A release in shards, passes of mixed widths, text four windows long: else a user decodes another model."""
    assert LENGTH > 3 * WINDOW
    folder = save_target(oracle(size), tmp_path, shards=3)
    target = load(folder, "float32").target
    logits = logits_in_passes([target], TEXT)
    assert_close(logits, expected(size))
    assert_close(logits, load_model(folder)[0](TEXT[None])[0])
    # or the cap and what it is for would not have been seen
    assert 0.8 * target.args.final_logit_softcapping < float(np.abs(expected(size)).max())


@pytest.mark.parametrize("size", SIZES)
def test_a_fine_tune_saved_by_transformers_is_the_same_model(size: str, tmp_path: Path) -> None:
    """Its configuration leaves out transformers' defaults and lists heads by layer, which mlx-lm reads as another."""
    folder = save_target(oracle(size), tmp_path, as_saved_by_5_23=True)
    oracle(size).config.save_pretrained(folder)
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "global_head_dim" not in said["text_config"]
    loaded = load(folder, "float32")
    assert_close(logits_in_passes([loaded.target], TEXT), expected(size))
    assert (loaded.target.vocab_size, loaded.context_tokens) == (VOCAB, 4096)


@pytest.mark.parametrize("size", ["E4B", "12B"])
def test_a_text_part_saved_alone_is_the_same_model(size: str, tmp_path: Path) -> None:
    folder = save_target(oracle(size), tmp_path)
    file = folder / "model.safetensors"
    text = {name: x for name, x in load_file(file).items() if name.startswith("model.language_model.")}
    save_file({name.replace("language_model.", ""): x for name, x in text.items()}, file, {"format": "pt"})
    oracle(size).config.text_config.save_pretrained(folder)
    assert_close(logits_in_passes([load(folder, "float32").target], TEXT), expected(size))


def test_a_fine_tune_whose_full_heads_are_no_larger_is_the_same_model(tmp_path: Path) -> None:
    """Transformers then lists no layer, and mlx-lm would take heads of its own default size, 512."""
    trunk = torch_target("31B", global_head_dim=16, num_global_key_value_heads=None, num_key_value_heads=2)
    folder = save_target(trunk, tmp_path, as_saved_by_5_23=True)
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
    assert said["per_layer_config"] == {}
    with torch.no_grad():
        wanted = trunk(torch.tensor(TEXT.tolist())[None]).logits[0].numpy()
    assert_close(logits_in_passes([load(folder, "float32").target], TEXT), wanted)


def test_full_layers_whose_heads_differ_are_refused(tmp_path: Path) -> None:
    """Mlx-lm has no words for them, and would read the weights of one kind as those of the other."""
    folder = save_target(oracle("31B"), tmp_path, as_saved_by_5_23=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    next(iter(config["text_config"]["per_layer_config"].values()))["head_dim"] = 64
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(FileError, match="heads differ"):
        load(folder)


# without experts, whose products MLX has in float32 only on a CPU
@pytest.mark.parametrize("size", ["E2B", "12B", "31B"])
def test_bfloat16_is_as_near_to_float32_as_mlx_lm_s(size: str, tmp_path: Path) -> None:
    """Otherwise a release in its own precision loses more of it here than elsewhere."""
    folder = save_target(oracle(size), tmp_path, dtype=torch.bfloat16)
    loaded = load(folder)
    assert loaded.target.dtype == mx.bfloat16
    ours, theirs = logits_in_passes([loaded.target], TEXT), loaded.target.model(TEXT[None])[0]
    exact = load(folder, "float32").target.model(TEXT[None])[0]
    assert ours.dtype == mx.bfloat16
    assert _mean_error(ours, exact) < 1.3 * _mean_error(theirs, exact) + 1e-3


def _mean_error(actual: mx.array, exact: mx.array) -> float:
    return float(mx.abs(actual.astype(mx.float32) - exact).mean())


def test_float16_is_refused(tmp_path: Path) -> None:
    """These models overflow in it: the text would be noise."""
    folder = save_target(oracle("12B"), tmp_path)
    with pytest.raises(OptionError, match="take bfloat16 or float32"):
        load(folder, "float16")
    save_target(oracle("12B"), tmp_path, dtype=torch.float16)
    loaded = load(folder)
    assert {x.dtype for _, x in tree_flatten(loaded.target.model.parameters())} == {mx.bfloat16}


@pytest.mark.parametrize(("size", "bits"), [("E2B", 8), ("12B", 4), ("26B-A4B", 4)])
def test_a_packed_trunk_is_mlx_lm_s(size: str, bits: int, tmp_path: Path) -> None:
    """As most people run these models."""
    folder = save_target(oracle(size), tmp_path / "model")
    convert(str(folder), mlx_path=str(tmp_path / "packed"), quantize=True, q_bits=bits, q_group_size=32)
    loaded: LoadedModel = load(tmp_path / "packed", "float32")
    assert loaded.quantization is not None
    assert loaded.quantization["bits"] == bits
    logits = logits_in_passes([loaded.target], TEXT)
    assert_close(logits, loaded.target.model(TEXT[None])[0])
    assert relative_error(logits, expected(size)) > 1e-3


def test_a_head_s_own_layer_is_a_full_one_of_the_trunk_s_kind(tmp_path: Path) -> None:
    """A head in another family's layout has one layer more, which borrows no keys and has no input of its own."""
    target: Target = load(save_target(oracle("E2B"), tmp_path), "float32").target
    layer = target.make_head_layer()
    randomise(layer, 3)
    h, cache = mx.random.normal((7, target.hidden_size), key=mx.random.key(0)), target.make_layer_cache(layer)
    parts = []
    for start, end in ((0, 4), (4, 5), (5, 7)):
        parts.append(target.run_layer(layer, h[start:end], cache, cache.mask(end - start)))
        cache.commit(end - start)
    assert_close(mx.concatenate(parts), layer(h[None], "causal", target.make_layer_cache(layer))[0][0])
