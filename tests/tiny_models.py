"""Tiny seeded mlx-lm models of every family served, and how logits are compared."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

VOCAB = 97

_PLAIN = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
_EXPERTS = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
_HYBRID = {
    **_PLAIN,
    "num_hidden_layers": 4,
    "full_attention_interval": 2,
    "head_dim": 16,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
}
_QWEN35 = {
    **_HYBRID,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}
_GEMMA4 = {
    **_PLAIN,
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "sliding_window": 8,
    "head_dim": 8,
    "global_head_dim": 16,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "use_double_wide_mlp": False,
    "final_logit_softcapping": 5.0,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Case:
    """One configuration: the mlx-lm module it is built by, and its `config.json`."""

    name: str
    module: str
    config: Mapping[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return self.name


def _case(name: str, module: str, base: Mapping[str, Any], **changes: Any) -> Case:
    return Case(name, module, {"model_type": module, **base, **changes})


CASES = (
    _case("qwen3_5", "qwen3_5", _QWEN35),
    _case("qwen3_5-tied", "qwen3_5", _QWEN35, tie_word_embeddings=True),
    _case("qwen3_5-one-value-head-per-key-head", "qwen3_5", _QWEN35, linear_num_value_heads=2),
    _case("qwen3_5-nested", "qwen3_5", {"text_config": {"model_type": "qwen3_5_text", **_QWEN35}}),
    _case("qwen3_5_moe", "qwen3_5_moe", {**_QWEN35, **_EXPERTS}),
    _case("qwen3_next", "qwen3_next", {**_HYBRID, **_EXPERTS}, partial_rotary_factor=0.5),
    _case(
        "qwen3_next-tied-some-dense",
        "qwen3_next",
        {**_HYBRID, **_EXPERTS},
        partial_rotary_factor=0.25,
        tie_word_embeddings=True,
        mlp_only_layers=[2],
        norm_topk_prob=False,
    ),
    _case("llama", "llama", _PLAIN),
    _case("llama-tied-biased", "llama", _PLAIN, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    _case(
        "llama-scaled-rope",
        "llama",
        _PLAIN,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    _case(
        "llama-sliding",
        "llama",
        _PLAIN,
        num_hidden_layers=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
        sliding_window=8,
    ),
    _case("mistral", "llama", _PLAIN, model_type="mistral", head_dim=16),
    _case("qwen2", "qwen2", _PLAIN),
    _case("qwen2-tied", "qwen2", _PLAIN, tie_word_embeddings=True),
    _case("qwen2_moe", "qwen2_moe", {**_PLAIN, **_EXPERTS}),
    _case("qwen2_moe-says-tied", "qwen2_moe", {**_PLAIN, **_EXPERTS}, tie_word_embeddings=True),
    _case("qwen3", "qwen3", _PLAIN, head_dim=16),
    _case("qwen3-tied", "qwen3", _PLAIN, head_dim=16, tie_word_embeddings=True),
    _case("qwen3_moe", "qwen3_moe", {**_PLAIN, **_EXPERTS}, head_dim=16, mlp_only_layers=[1]),
    _case("mixtral", "mixtral", _PLAIN, num_local_experts=6, num_experts_per_tok=2),
    _case("olmo2", "olmo2", _PLAIN, tie_word_embeddings=True),
    _case("olmoe", "olmoe", {**_PLAIN, **_EXPERTS}),
    _case("phi3", "phi3", _PLAIN, partial_rotary_factor=0.5),
    _case("seed_oss", "seed_oss", _PLAIN, head_dim=16, attention_bias=True, attention_out_bias=True),
    _case("seed_oss-tied", "seed_oss", _PLAIN, head_dim=16, tie_word_embeddings=True),
    _case("smollm3", "smollm3", _PLAIN, num_hidden_layers=5, tie_word_embeddings=True),
    _case("hunyuan_v1_dense", "hunyuan_v1_dense", _PLAIN, head_dim=16),
    _case("glm4", "glm4", _PLAIN, head_dim=16, attention_bias=True, partial_rotary_factor=0.5),
    _case("gemma4_text", "gemma4_text", _GEMMA4),
    _case("gemma4", "gemma4", {"text_config": {**_GEMMA4, "tie_word_embeddings": False}}, vocab_size=VOCAB),
)


def case(name: str, **changes: Any) -> Case:
    """The case called ``name`` with some of its configuration changed."""
    found = next(c for c in CASES if c.name == name)
    return Case(name, found.module, {**found.config, **changes})


def build(case: Case, seed: int = 0) -> Any:
    """The mlx-lm model of ``case`` in float32, every weight drawn from ``seed``, ready to run."""
    arch = importlib.import_module(f"mlx_lm.models.{case.module}")
    # a copy: some of mlx-lm's arguments change the dictionaries that they are given
    model = arch.Model(arch.ModelArgs.from_dict(_copied(case.config)))
    randomise(model, seed)
    model.eval()
    return model


def randomise(module: Any, seed: int) -> None:
    """Give every parameter a value that shows if it is ignored: no norm is one, no bias is zero, decays differ."""
    rng = np.random.default_rng(seed)
    drawn = [(path, _drawn(path, array.shape, rng)) for path, array in tree_flatten(module.parameters())]
    module.update(tree_unflatten(drawn))
    mx.eval(module.parameters())


def _drawn(path: str, shape: tuple[int, ...], rng: np.random.Generator) -> mx.array:
    if path.endswith("A_log"):
        values = rng.uniform(-4.0, 1.5, shape)
    elif path.endswith("conv1d.weight"):
        values = rng.normal(0.0, 0.7, shape)
    elif len(shape) == 1 and "norm" in path:
        values = 1.0 + 0.4 * rng.standard_normal(shape)
    elif len(shape) == 1:
        values = 0.5 * rng.standard_normal(shape)
    elif "embed_tokens" in path:
        values = rng.standard_normal(shape)
    else:
        # a little more than preserves the scale, so that no layer is drowned by the residual stream
        values = rng.normal(0.0, 1.6 / np.sqrt(shape[-1]), shape)
    return mx.array(values.astype(np.float32))


def _copied(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def random_tokens(count: int, seed: int) -> mx.array:
    """``[count]`` tokens of the tiny vocabulary."""
    return mx.array(np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.int32))


def relative_error(actual: Any, expected: Any) -> float:
    """Greatest difference over the greatest expected value. Shapes must agree."""
    actual, expected = np.array(actual, np.float32), np.array(expected, np.float32)
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    assert np.isfinite(expected).all()
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Fail unless ``actual`` equals ``expected`` to rounding; a NaN never does."""
    error = relative_error(actual, expected)
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"
