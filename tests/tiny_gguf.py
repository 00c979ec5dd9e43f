"""Tiny seeded models as llama.cpp's converter writes them: names, kinds and metadata by the `gguf` package.

The order of rows of queries and keys is that of `permute` in llama.cpp's `conversion/llama.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Kind
from mlx.utils import tree_flatten, tree_unflatten
from tiny_models import Case, build, case
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCAB = 288
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>")
BOS, END_OF_TURN = 0, 2
_MERGES = ["h e", "t he", "i n", "a n", "an d", "o n", "e r", "Ġ t", "Ġ a", "r e", "Ġt he"]

# general.architecture by mlx-lm's type, and whether llama.cpp's converter permutes its queries and keys
ARCHITECTURES = {
    "llama": ("llama", True),
    "mixtral": ("llama", True),
    "smollm3": ("smollm3", True),
    "qwen2": ("qwen2", False),
    "qwen2_moe": ("qwen2moe", False),
    "qwen3": ("qwen3", False),
    "qwen3_moe": ("qwen3moe", False),
    "seed_oss": ("seed_oss", False),
    "olmo2": ("olmo2", False),
    "olmoe": ("olmoe", False),
    "phi3": ("phi3", False),
    "hunyuan_v1_dense": ("hunyuan-dense", False),
    "glm4": ("glm4", False),
}

Writer = gguf.GGUFWriter
Change = Callable[[Writer], object]


def gguf_case(name: str, **changes: Any) -> Case:
    """The case ``name`` of `tiny_models` in sizes that blocks of 32 divide, and with this tokenizer's vocabulary."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "vocab_size": VOCAB}
    return case(name, **{**sizes, "shared_expert_intermediate_size": 64, **changes})


def write_gguf(
    path: Path,
    model_case: Case,
    kind: str = "F32",
    *,
    metadata: Change | None = None,
    tensors: Callable[[dict[str, np.ndarray]], object] | None = None,
    tokenizer: Change | None = None,
    model: Any = None,
) -> Any:
    """Write the model of ``model_case`` to ``path``, its matrices in ``kind``, and return it with those weights.

    ``metadata`` and ``tensors`` change what is written after all the rest; ``tokenizer`` takes the tokenizer's place.
    """
    model = build(model_case) if model is None else model
    architecture, permuted = ARCHITECTURES[model_case.module]
    writer = Writer(path, architecture)
    _describe(writer, model_case.config, architecture, model)
    (tokenizer or write_tokenizer)(writer)
    if metadata is not None:
        metadata(writer)
    rounded = []
    written: dict[str, np.ndarray] = {}
    kinds: dict[str, Kind] = {}
    names = gguf.get_tensor_name_map(_architecture(architecture), model.args.num_hidden_layers)
    for path_, array in tree_flatten(model.parameters()):
        name = names.get_name(_upstream(path_), try_suffixes=(".weight", ".bias"))
        assert name is not None, path_
        values, wanted = np.array(array), Kind[kind] if array.ndim > 1 and ".gate.weight" not in path_ else Kind.F32
        stored = gguf.quants.quantize(values, wanted)
        rounded.append((path_, mx.array(gguf.quants.dequantize(stored, wanted).reshape(values.shape))))
        if permuted and (".q_proj." in path_ or ".k_proj." in path_):
            stored = permute(stored, model.args.num_attention_heads, model.args.num_key_value_heads, path_)
        written[name], kinds[name] = stored, wanted
    if tensors is not None:
        tensors(written)
    for name, stored in written.items():
        # bytes that a caller put in the place of numbers are blocks
        wanted = Kind.Q8_0 if stored.dtype == np.uint8 and kinds.get(name) is Kind.F32 else kinds.get(name, Kind.F32)
        writer.add_tensor(name, stored, raw_dtype=wanted)
    _finish(writer)
    model.update(tree_unflatten(rounded))
    return model


def permute(rows: np.ndarray, num_heads: int, num_kv_heads: int, name: str) -> np.ndarray:
    """Halves to neighbouring pairs, on rows of whatever was packed into them."""
    heads = num_heads if ".q_proj." in name else num_kv_heads
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_tokenizer(writer: Writer, vocab: int = VOCAB) -> None:
    """Byte-level pairs with a chat template, unused tokens up to ``vocab``."""
    tokens = [*SPECIAL, *bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in _MERGES)]
    types = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.USER_DEFINED] + [gguf.TokenType.NORMAL] * (len(tokens) - 4)
    unused = vocab - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens + [f"[PAD{index}]" for index in range(unused)])
    writer.add_token_types(types + [gguf.TokenType.UNUSED] * unused)
    writer.add_token_merges(_MERGES)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(END_OF_TURN)
    writer.add_chat_template(CHAT_TEMPLATE)


def with_rope(model_case: Case, **scaling: Any) -> Case:
    """The case with ``scaling`` as its `rope_scaling`."""
    return replace(model_case, config={**model_case.config, "rope_scaling": scaling})


def _describe(writer: Writer, config: Mapping[str, Any], architecture: str, model: Any) -> None:
    """What llama.cpp's `TextModel.set_gguf_parameters` writes, and its subclasses' for these models."""
    heads, experts = config["num_attention_heads"], config.get("num_experts", config.get("num_local_experts"))
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if "head_dim" in config:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if architecture in ("llama", "smollm3", "phi3", "glm4"):
        writer.add_rope_dimension_count(int(head_dim * config.get("partial_rotary_factor", 1.0)))
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])


def _architecture(name: str) -> gguf.MODEL_ARCH:
    return next(number for number, known in gguf.MODEL_ARCH_NAMES.items() if known == name)


def _upstream(name: str) -> str:
    """mlx-lm's name of a parameter as the converter sees it: stacked experts under upstream's name for one."""
    if "block_sparse_moe.switch_mlp" in name:
        names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
        prefix, _, projection = name.removesuffix(".weight").rpartition(".")
        layer = prefix.removeprefix("model.").removesuffix(".block_sparse_moe.switch_mlp")
        return f"{layer}.feed_forward.experts.{names[projection]}.weight"
    return name.replace(".switch_mlp.", ".experts.")


def _finish(writer: Writer) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
