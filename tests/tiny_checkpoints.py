"""Tiny seeded transformers models, saved as upstream releases them, and a tokenizer to go with them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_models import VOCAB
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3_5ForCausalLM,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

Tensors = dict[str, torch.Tensor]

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
    "eos_token_id": 1,
    "bos_token_id": 0,
}
_HYBRID: dict[str, Any] = {
    **_COMMON,
    "head_dim": 32,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "full_attention_interval": 2,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}
_EXPERTS: dict[str, Any] = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}


def torch_model(family: str, *, tied: bool = False, seed: int = 0) -> Any:
    """A float32 transformers model of ``family`` with weights that show if they are ignored."""
    torch.manual_seed(seed)
    match family:
        case "qwen3_5":
            model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**_HYBRID, tie_word_embeddings=tied))
        case "qwen3_5_moe":
            model = Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**_HYBRID, **_EXPERTS, tie_word_embeddings=tied))
        case "qwen3_next":
            config = Qwen3NextConfig(
                **_HYBRID, **_EXPERTS, tie_word_embeddings=tied, decoder_sparse_step=1, mlp_only_layers=[]
            )
            model = Qwen3NextForCausalLM(config)
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**_COMMON, tie_word_embeddings=tied))
        case _:
            raise AssertionError(family)
    model = model.float().eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(module: torch.nn.Module) -> None:
    """Draw every parameter from torch's generator; norms get a weight around what leaves the scale alone."""
    for name, parameter in module.named_parameters():
        if name.endswith("A_log"):
            parameter.uniform_(-4.0, 1.5)
        elif name.endswith("conv1d.weight"):
            parameter.normal_(0.0, 0.7)
        elif parameter.ndim == 1:
            # a new norm's weight is one, or zero where the layer adds the one itself
            parameter.add_(0.4 * torch.randn_like(parameter))
        elif "embed_tokens" in name:
            parameter.normal_(0.0, 1.0)
        else:
            parameter.normal_(0.0, 1.6 / parameter.shape[-1] ** 0.5)


def save(model: Any, folder: Path, *, shards: int = 1, nested: bool = False, more: Tensors | None = None) -> Path:
    """Write ``model``, the tensors ``more`` and a tokenizer to ``folder`` as upstream releases such checkpoints.

    ``nested``: as the text part of a multimodal checkpoint.
    """
    config = json.loads(model.config.to_json_string(use_diff=False))
    # a text-only save of transformers calls itself so; released checkpoints are nested, and mlx-lm knows no other type
    model_type = config["model_type"] = config["model_type"].removesuffix("_text")
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    if model_type == "qwen3_next":
        # released with one tensor per expert and the rope's numbers at the top
        tensors = split_experts(tensors)
        config |= {name: config["rope_parameters"][name] for name in ("rope_theta", "partial_rotary_factor")}
    if nested:
        config = {"model_type": model_type, "architectures": config["architectures"], "text_config": config}
        tensors = {_nested(name): tensor for name, tensor in tensors.items()}
        tensors["model.visual.patch_embed.proj.weight"] = torch.zeros(4, 4)
    write_tensors(folder, {**tensors, **(more or {})}, shards)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_tokenizer(folder)
    return folder


def write_tensors(folder: Path, tensors: Tensors, shards: int) -> None:
    """One `model.safetensors`, or ``shards`` files and their index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    files = {f"model-{n + 1:05}-of-{shards:05}.safetensors": sorted(tensors)[n::shards] for n in range(shards)}
    for file, names in files.items():
        save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def split_experts(tensors: Tensors) -> Tensors:
    """Fused experts to one tensor per expert and projection."""
    out: Tensors = {}
    for name, tensor in tensors.items():
        prefix, fused, projection = name.rpartition("experts.")
        if not fused or projection not in ("gate_up_proj", "down_proj"):
            out[name] = tensor
            continue
        for index, expert in enumerate(tensor):
            parts = {"down_proj": expert}
            if projection == "gate_up_proj":
                parts = dict(zip(("gate_proj", "up_proj"), expert.chunk(2), strict=True))
            for part, weight in parts.items():
                out[f"{prefix}experts.{index}.{part}.weight"] = weight.contiguous()
    return out


def _nested(name: str) -> str:
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of one word per token."""
    words = {f"w{index}": index for index in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1").save_pretrained(folder)
