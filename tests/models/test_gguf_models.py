"""A GGUF file is the model it was converted from: the same logits, in every kind that can be read."""

from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from tiny_gguf import VOCAB, gguf_case, with_rope, write_gguf
from tiny_models import Case, assert_close, build

from skulk_core.models.loading import LoadedModel, load
from skulk_core.models.plain import PlainTarget

TOKENS = mx.array(np.random.default_rng(3).integers(0, VOCAB, 40).astype(np.int32))
ROPE_CONTEXT = 4096

FAMILIES = {
    "llama": gguf_case("llama"),
    "llama tied, biased": gguf_case("llama-tied-biased"),
    # mistral's heads are not a part of the hidden size, and it calls itself llama
    "mistral": gguf_case("mistral", head_dim=32),
    "mixtral": gguf_case("mixtral", num_key_value_heads=1),
    "smollm3": gguf_case("smollm3"),
    "qwen2": gguf_case("qwen2"),
    "qwen2 tied": gguf_case("qwen2-tied"),
    "qwen2moe": gguf_case("qwen2_moe"),
    "qwen3": gguf_case("qwen3", head_dim=32),
    "qwen3 tied": gguf_case("qwen3-tied"),
    "qwen3moe": gguf_case("qwen3_moe", mlp_only_layers=[]),
    "seed_oss": gguf_case("seed_oss"),
    "olmo2": gguf_case("olmo2"),
    "olmoe": gguf_case("olmoe", norm_topk_prob=False),
    "phi3, a part of each head turned": gguf_case("phi3"),
    "hunyuan-dense": gguf_case("hunyuan_v1_dense"),
    "glm4": gguf_case("glm4"),
}


def logits(model: Any) -> mx.array:
    result: mx.array = model(TOKENS[None])[0]
    return result


def through_the_target(loaded: LoadedModel) -> mx.array:
    """As decoding does it: passes of several widths, with our caches."""
    target, parts, at = loaded.target, [], 0
    caches = target.make_caches()
    for width in (17, 1, 3, 19):
        activations = target.run_and_commit(target.embed(TOKENS[at : at + width], at), caches)
        parts.append(target.logits(target.norm(activations.h)))
        at += width
    return mx.concatenate(parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_unquantised_weights_of_every_family(tmp_path: Path, family: str) -> None:
    expected = write_gguf(tmp_path / "m.gguf", FAMILIES[family])
    loaded = load(tmp_path / "m.gguf")
    assert isinstance(loaded.target, PlainTarget)
    assert loaded.quantization is None
    assert_close(through_the_target(loaded), logits(expected))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "F16", "BF16"])
@pytest.mark.parametrize("family", ["llama tied, biased", "mixtral", "qwen2moe", "qwen3"])
def test_the_weights_that_llama_cpp_computes_with(tmp_path: Path, family: str, kind: str) -> None:
    """Blocks become MLX's packed weights without loss, with the rows of queries and keys where they belong."""
    expected = write_gguf(tmp_path / "m.gguf", FAMILIES[family], kind)
    loaded = load(tmp_path / "m.gguf", "float32")
    bits = {"Q8_0": 8, "Q4_0": 4, "Q4_1": 4}.get(kind)
    assert (loaded.quantization or {}).get("bits") == bits
    assert_close(logits(loaded.target.model), logits(expected))


def test_bfloat16_keeps_numbers_that_float16_has_not(tmp_path: Path) -> None:
    """MLX reads them as infinity and zero."""
    case = gguf_case("llama")
    model = build(case)
    model.lm_head.weight, model.model.embed_tokens.weight = (
        weight * scale for weight, scale in ((model.lm_head.weight, 1e30), (model.model.embed_tokens.weight, 1e-30))
    )
    expected = write_gguf(tmp_path / "m.gguf", case, "BF16", model=model)
    ours = load(tmp_path / "m.gguf").target.model
    for got, wanted in ((ours.lm_head, expected.lm_head), (ours.model.embed_tokens, expected.model.embed_tokens)):
        assert got.weight.dtype == mx.bfloat16
        assert mx.array_equal(got.weight.astype(mx.float32), wanted.weight)


@pytest.mark.parametrize(("kind", "expected"), [("F32", mx.float32), ("F16", mx.bfloat16), ("Q8_0", mx.float32)])
def test_one_dtype_where_nobody_chose_one(tmp_path: Path, kind: str, expected: mx.Dtype) -> None:
    """Norms are F32 in every file: left so, activations would be, and packed products would cast their scales anew."""
    write_gguf(tmp_path / "m.gguf", gguf_case("llama"), kind)
    loaded = load(tmp_path / "m.gguf")
    assert loaded.target.dtype == expected
    assert through_the_target(loaded).dtype == expected


def test_a_dtype_to_compute_in(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", gguf_case("llama"), "Q8_0")
    for dtype in (mx.bfloat16, mx.float16, mx.float32):
        loaded = load(tmp_path / "m.gguf", str(dtype).rpartition(".")[2])
        assert loaded.target.dtype == dtype
        assert through_the_target(loaded).dtype == dtype


def test_a_file_without_a_second_copy_of_the_embedding(tmp_path: Path) -> None:
    """mlx-lm's model has an LM head of its own here, whatever the file says."""

    def drop(tensors: dict[str, np.ndarray]) -> None:
        del tensors["output.weight"]

    expected = write_gguf(tmp_path / "m.gguf", gguf_case("qwen2_moe"), "Q8_0", tensors=drop)
    expected.lm_head.weight = expected.model.embed_tokens.weight
    assert_close(logits(load(tmp_path / "m.gguf", "float32").target.model), logits(expected))


def test_a_vector_for_a_matrix_of_one_row(tmp_path: Path) -> None:
    """How llama.cpp's converter writes the gate of the shared expert."""

    def squeeze(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if "ffn_gate_inp_shexp" in name]:
            tensors[name] = tensors[name].reshape(-1)

    expected = write_gguf(tmp_path / "m.gguf", gguf_case("qwen2_moe"), tensors=squeeze)
    assert_close(logits(load(tmp_path / "m.gguf").target.model), logits(expected))


def llama3_factors(base: float, dims: int, factor: float, low: float, high: float, original: float) -> np.ndarray:
    """As llama.cpp's converter computes `rope_freqs`, in one go."""
    wavelengths = 2 * np.pi * base ** (np.arange(0, dims, 2) / dims)
    smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def scaled(name: str) -> tuple[Case, Any, Any]:
    """A case with scaled RoPE, and what its file has beside the rest: metadata, tensors."""
    llama, theta = gguf_case("llama", rope_theta=5e5), 5e5
    match name:
        case "linear":
            scaling = with_rope(llama, rope_type="linear", factor=4.0)
            return scaling, (gguf.RopeScalingType.LINEAR, 4.0), None
        case "yarn":
            yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
            return with_rope(gguf_case("qwen3"), **yarn), (gguf.RopeScalingType.YARN, 4.0), None
        case "llama 3.1":
            settings = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            original = {"original_max_position_embeddings": 8192}
            factors = llama3_factors(theta, 16, 8.0, 1.0, 4.0, 8192)
            return with_rope(llama, rope_type="llama3", **settings, **original), None, {"rope_freqs.weight": factors}
        case "factors of nobody's":
            factors = np.linspace(1, 7, 8, dtype=np.float32)
            longrope = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": factors.tolist()}
            mlx = with_rope(llama, **longrope, original_max_position_embeddings=ROPE_CONTEXT)
            return mlx, None, {"rope_freqs.weight": factors}
        case "phi3's two lists":
            long, short = np.linspace(1, 9, 4, dtype=np.float32), np.ones(4, np.float32)
            longrope = {"type": "longrope", "short_factor": short.tolist(), "long_factor": long.tolist()}
            phi3 = with_rope(gguf_case("phi3", original_max_position_embeddings=1024), **longrope)
            return phi3, "longrope", {"rope_factors_long.weight": long, "rope_factors_short.weight": short}
    raise AssertionError(name)


@pytest.mark.parametrize("name", ["linear", "yarn", "llama 3.1", "factors of nobody's", "phi3's two lists"])
def test_scaled_rope(tmp_path: Path, name: str) -> None:
    """Ignored, it would spoil long texts first and short ones little: the last rows of a long prompt tell."""
    case, settings, factors = scaled(name)

    def describe(writer: gguf.GGUFWriter) -> None:
        if isinstance(settings, tuple):
            writer.add_rope_scaling_type(settings[0])
            writer.add_rope_scaling_factor(settings[1])
        if name in ("yarn", "phi3's two lists"):
            writer.add_rope_scaling_orig_ctx_len(1024)
        if name == "phi3's two lists":
            writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(4) / np.log(1024))))

    def add(tensors: dict[str, np.ndarray]) -> None:
        tensors.update(factors or {})

    expected = write_gguf(tmp_path / "m.gguf", case, metadata=describe, tensors=add)
    loaded = load(tmp_path / "m.gguf").target.model
    assert_close(logits(loaded), logits(expected))
    plain = load(write_unscaled(tmp_path, case)).target.model
    assert float(mx.abs(logits(plain) - logits(expected)).max()) > 1e-2


def write_unscaled(folder: Path, case: Case) -> Path:
    write_gguf(folder / "unscaled.gguf", Case(case.name, case.module, {**case.config, "rope_scaling": None}))
    return folder / "unscaled.gguf"


def test_what_the_configuration_says(tmp_path: Path) -> None:
    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_eot_token_id(3)
        writer.add_vocab_size(VOCAB)

    write_gguf(tmp_path / "m.gguf", gguf_case("llama"), metadata=describe)
    loaded = load(tmp_path / "m.gguf")
    assert loaded.context_tokens == ROPE_CONTEXT
    assert loaded.target.vocab_size == VOCAB
    assert sorted(loaded.tokenizer.eos_token_ids) == [2, 3]
    assert loaded.headers.model == ()
