"""GGUF architectures that are served: the mlx-lm model of each, and where each of its tensors belongs there.

Names are those of llama.cpp's `gguf-py` (`TENSOR_NAMES`), what its converters do to weights those of `conversion/`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
# factors of RoPE's frequencies are settings (`gguf_rope`), the rest what older converters left in
_NO_WEIGHTS = re.compile(r"rope_freqs|rope_factors_(long|short)|blk\.\d+\.attn_rot_embd")

_ATTENTION = {f"attn_{letter}": f"self_attn.{letter}_proj" for letter in "qkv"} | {"attn_output": "self_attn.o_proj"}
_DENSE = {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_HEAD_NORMS = {f"attn_{letter}_norm": f"self_attn.{letter}_norm" for letter in "qk"}
_PLAIN = _ATTENTION | _DENSE | _NORMS


def _experts(module: str) -> dict[str, str]:
    parts = {f"ffn_{part}_exps": f"{module}.switch_mlp.{part}_proj" for part in ("gate", "up", "down")}
    return {"ffn_gate_inp": f"{module}.gate"} | parts


@dataclass(frozen=True)
class Architecture:
    """How one `general.architecture` becomes a model.

    ``blocks`` maps the names in a block to mlx-lm's in a layer. ``interleaved``: rows of queries and keys are stored
    in the order of a RoPE over neighbouring pairs, not over halves as mlx-lm's model turns them. ``scales_rope``: the
    model heeds `rope_scaling`. ``partial_rope``: it may turn only a part of a head.
    """

    model_type: str
    blocks: Mapping[str, str] = field(hash=False)
    interleaved: bool = False
    scales_rope: bool = False
    partial_rope: bool = False

    def path(self, tensor: str) -> str | None:
        """mlx-lm's name of the GGUF tensor ``tensor``, None if this architecture has no such tensor."""
        stem, _, part = tensor.rpartition(".")
        if stem in _OUTER:
            return f"{_OUTER[stem]}.{part}"
        block = _BLOCK.fullmatch(stem)
        if block is None or block[2] not in self.blocks:
            return None
        return f"model.layers.{block[1]}.{self.blocks[block[2]]}.{part}"

    @staticmethod
    def is_setting(tensor: str) -> bool:
        """Whether ``tensor`` holds no weights of the model."""
        return _NO_WEIGHTS.fullmatch(tensor.rpartition(".")[0]) is not None


MIXTRAL = Architecture("mixtral", _ATTENTION | _NORMS | _experts("block_sparse_moe"), interleaved=True)
ARCHITECTURES = {
    "llama": Architecture("llama", _PLAIN, interleaved=True, scales_rope=True),
    "smollm3": Architecture("smollm3", _PLAIN, interleaved=True, scales_rope=True),
    "qwen2": Architecture("qwen2", _PLAIN, scales_rope=True),
    "qwen2moe": Architecture(
        "qwen2_moe",
        _ATTENTION
        | _NORMS
        | _experts("mlp")
        | {f"ffn_{part}_shexp": f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")}
        | {"ffn_gate_inp_shexp": "mlp.shared_expert_gate"},
    ),
    "qwen3": Architecture("qwen3", _PLAIN | _HEAD_NORMS, scales_rope=True),
    "qwen3moe": Architecture("qwen3_moe", _ATTENTION | _NORMS | _HEAD_NORMS | _experts("mlp")),
    "seed_oss": Architecture(
        "seed_oss",
        _ATTENTION | _DENSE | {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"},
        scales_rope=True,
    ),
    "olmo2": Architecture(
        "olmo2",
        _ATTENTION
        | _DENSE
        | _HEAD_NORMS
        | {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"},
        scales_rope=True,
    ),
    "olmoe": Architecture("olmoe", _ATTENTION | _NORMS | _HEAD_NORMS | _experts("mlp"), scales_rope=True),
    "phi3": Architecture(
        "phi3",
        _NORMS
        | {"attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj"}
        | {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"},
        scales_rope=True,
        partial_rope=True,
    ),
    "hunyuan-dense": Architecture(
        "hunyuan_v1_dense",
        _PLAIN | {"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"},
    ),
    # mlx-lm's model turns neighbouring pairs itself, as upstream's does
    "glm4": Architecture(
        "glm4",
        _ATTENTION
        | _NORMS
        | {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}
        | {"post_attention_norm": "post_self_attn_layernorm", "post_ffw_norm": "post_mlp_layernorm"},
        partial_rope=True,
    ),
}
