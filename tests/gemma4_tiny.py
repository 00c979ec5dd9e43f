"""Tiny seeded Gemma 4 checkpoints of every size's shape, targets and assistants, written as they are released.

    model = torch_target("E2B")                               # transformers' own class, float32: the oracle
    folder = save_target(model, tmp_path / "target", shards=3)
    loaded = load(folder, "float32")                          # ours, over mlx-lm's reading of the same files

    assistant = torch_assistant(model, ordered=True)          # transformers' own class, fits the target
    save_assistant(assistant, tmp_path / "assistant")

`torch_target(size)` takes a name of `SIZES` and changes to its text configuration (`sliding_window=8`). The oracle of a
target is ``model(tokens[None]).logits``. The oracle of an assistant is its own ``forward(inputs_embeds=…,
position_ids=…, shared_kv_states={"full_attention": (keys, values), "sliding_attention": …})``: the keys and values of
the target's rows, `[1, Hkv, rows, D]`, which `torch_state` gives together with the target's hidden rows. It is all
transformers' own but for one property, see `_mend_sharing`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_checkpoints import Tensors, randomise, write_tensors
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma4AssistantConfig,
    Gemma4AssistantForCausalLM,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4UnifiedAssistantConfig,
    Gemma4UnifiedAssistantForCausalLM,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedTextConfig,
    PreTrainedTokenizerFast,
)

# Divides into the assistants' clusters of tokens.
VOCAB = 112
WINDOW = 16
NUM_CENTROIDS = 14
CENTROIDS_LOOKED_INTO = 5

_TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "max_position_embeddings": 4096,
    "sliding_window": WINDOW,
    "final_logit_softcapping": 6.0,
    "attn_implementation": "eager",
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_NO_LAYER_INPUTS = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": VOCAB}
_LAYER_INPUTS = {"hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": VOCAB}


def _pattern(sliding: int, times: int) -> dict[str, Any]:
    """So many sliding layers to a full one, so many times."""
    layer_types = (["sliding_attention"] * sliding + ["full_attention"]) * times
    return {"layer_types": layer_types, "num_hidden_layers": len(layer_types)}


@dataclass(frozen=True)
class Size:
    """The shape of one release: what its text configuration says beyond what all share."""

    unified: bool
    text: Mapping[str, Any]


SIZES: dict[str, Size] = {
    # one K/V head, the last layers read the K/V of layers before, their MLP twice as wide
    "E2B": Size(
        False,
        {
            **_LAYER_INPUTS,
            **_pattern(4, 2),
            "num_key_value_heads": 1,
            "num_kv_shared_layers": 5,
            "use_double_wide_mlp": True,
        },
    ),
    # the last layer with K/V of its own is a sliding one here
    "E4B": Size(False, {**_LAYER_INPUTS, **_pattern(5, 2), "num_kv_shared_layers": 5}),
    "12B": Size(
        True,
        {**_pattern(5, 1), "attention_k_eq_v": True, "num_global_key_value_heads": 1, "num_attention_heads": 4},
    ),
    "26B-A4B": Size(
        False,
        {
            **_NO_LAYER_INPUTS,
            **_pattern(5, 1),
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "enable_moe_block": True,
            "num_experts": 6,
            "top_k_experts": 2,
            "moe_intermediate_size": 64,
        },
    ),
    "31B": Size(
        False,
        {
            **_NO_LAYER_INPUTS,
            **_pattern(5, 2),
            "attention_k_eq_v": True,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "num_global_key_value_heads": 2,
        },
    ),
}


def _mend_sharing() -> None:
    """Let transformers' text configurations describe assistants, and targets none of whose layers share.

    5.23 refuses the former (all layers share) and gives the latter no state for an assistant to read.
    """
    for config in (Gemma4TextConfig, Gemma4UnifiedTextConfig):
        own = config.kv_sharing_modes.fget
        assert own is not None

        def modes(self: Any, own: Any = own) -> list[str | None]:
            if self.num_kv_shared_layers == self.num_hidden_layers:
                return ["reuse"] * self.num_hidden_layers
            found: list[str | None] = own(self)
            if self.num_kv_shared_layers == 0:
                for index in {kind: index for index, kind in enumerate(self.layer_types)}.values():
                    found[index] = "store"
            return found

        config.kv_sharing_modes = property(modes)


_mend_sharing()


def torch_target(size: str, *, seed: int = 0, **changes: Any) -> Any:
    """The float32 model of ``size`` by transformers, without vision and audio; ``changes`` are to its text part."""
    shape = SIZES[size]
    text = {**_TEXT, **shape.text, **changes}
    torch.manual_seed(seed)
    if shape.unified:
        unified = Gemma4UnifiedConfig(
            text_config=Gemma4UnifiedTextConfig(**text), vision_config=None, audio_config=None
        )
        model: Any = Gemma4UnifiedForConditionalGeneration(unified)
    else:
        config = Gemma4Config(text_config=Gemma4TextConfig(**text), vision_config=None, audio_config=None)
        model = Gemma4ForConditionalGeneration(config)
    model = model.float().eval()
    randomise_gemma(model)
    return model


@torch.no_grad()
def randomise_gemma(model: Any) -> None:
    """As `randomise`; the embedding leaves the layers something to say, and no layer's scalar is one."""
    randomise(model)
    for name, parameter in model.named_parameters():
        if name.endswith("embed_tokens.weight"):
            parameter.mul_(0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.copy_(1.0 + 0.2 * torch.randn_like(buffer).clamp(-2, 2))


def save_target(
    model: Any, folder: Path, *, shards: int = 1, dtype: torch.dtype = torch.float32, as_saved_by_5_23: bool = False
) -> Path:
    """Write ``model`` and a tokenizer to ``folder`` with the names and the configuration of a release.

    A release has more than mlx-lm reads: parts for pictures and sounds, and keys and values of layers that use none.
    ``as_saved_by_5_23``: the configuration as transformers 5.23 writes it, which says the heads of full layers layer
    by layer; releases say it once.
    """
    tensors = {
        name: tensor.detach().to(dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    tensors |= {name: tensor.to(dtype) for name, tensor in _unread(model).items()}
    config = json.loads(model.config.to_json_string(use_diff=False))
    if not as_saved_by_5_23:
        text = config["text_config"]
        _say_heads_once(text, model.config.text_config)
        # of the released vocabulary mlx-lm knows the size by itself
        config["vocab_size"] = text["vocab_size"]
        # a unified release says so too, though transformers' configuration knows no such thing
        text.setdefault("hidden_size_per_layer_input", 0)
    return _written(folder, tensors, config, shards)


def torch_assistant(target: Any, *, ordered: bool = False, seed: int = 7, **changes: Any) -> Any:
    """The float32 assistant for ``target`` by transformers, of the same kind; ``changes`` are to its text part.

    ``ordered``: with centroids. Its heads read the target's keys and values, so their sizes are the target's.
    """
    of_target = target.config.text_config
    unified = isinstance(of_target, Gemma4UnifiedTextConfig)
    sliding, full = (of_target.per_layer_config[kind] for kind in ("sliding_attention", "full_attention"))
    text = {
        **_TEXT,
        **({} if unified else {**_NO_LAYER_INPUTS, "vocab_size_per_layer_input": 0}),
        **_pattern(3, 1),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_kv_shared_layers": 4,
        "final_logit_softcapping": None,
        "sliding_window": of_target.sliding_window,
        "num_attention_heads": of_target.num_attention_heads,
        "num_key_value_heads": sliding.num_key_value_heads,
        "num_global_key_value_heads": full.num_key_value_heads,
        "attention_k_eq_v": of_target.attention_k_eq_v,
        **changes,
    }
    more = {
        "backbone_hidden_size": of_target.hidden_size,
        "use_ordered_embeddings": ordered,
        "num_centroids": NUM_CENTROIDS,
        "centroid_intermediate_top_k": CENTROIDS_LOOKED_INTO,
    }
    torch.manual_seed(seed)
    if unified:
        text_config: Any = Gemma4UnifiedTextConfig(**text)
        model: Any = Gemma4UnifiedAssistantForCausalLM(Gemma4UnifiedAssistantConfig(text_config=text_config, **more))
    else:
        text_config = Gemma4TextConfig(**text)
        model = Gemma4AssistantForCausalLM(Gemma4AssistantConfig(text_config=text_config, **more))
    model = model.float().eval()
    randomise_gemma(model)
    if ordered:
        model.masked_embedding.token_ordering.copy_(torch.randperm(VOCAB))
    return model


def save_assistant(
    model: Any, folder: Path, *, shards: int = 1, dtype: torch.dtype = torch.float32, as_saved_by_5_23: bool = False
) -> Path:
    """Write an assistant to ``folder`` with the names and the configuration of a release; see `save_target`."""
    tensors = {
        name: tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    config = json.loads(model.config.to_json_string(use_diff=False))
    if not as_saved_by_5_23:
        _say_heads_once(config["text_config"], model.config.text_config)
    return _written(folder, tensors, config, shards)


@dataclass(frozen=True)
class TorchState:
    """What an assistant reads of a target that was fed ``T`` tokens, by transformers.

    ``hidden`` ``[T, H]`` after the final norm; ``shared_kv_states`` layer type → keys and values ``[1, Hkv, T, D]`` of
    the last layer of that type with its own, after RoPE and norm, every row (no window cut off).
    """

    hidden: torch.Tensor
    shared_kv_states: dict[str, tuple[torch.Tensor, torch.Tensor]]


@torch.no_grad()
def torch_state(target: Any, tokens: list[int]) -> TorchState:
    """The state of ``target`` after ``tokens``, from one pass without a cache."""
    out = target.model.language_model(torch.tensor(tokens)[None], use_cache=False, return_shared_kv_states=True)
    return TorchState(out.last_hidden_state[0], dict(out.shared_kv_states))


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of one word per token of the tiny vocabulary."""
    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(VOCAB)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", bos_token="w2").save_pretrained(folder)


def _written(folder: Path, tensors: Tensors, config: dict[str, Any], shards: int) -> Path:
    folder.mkdir(exist_ok=True)
    write_tensors(folder, tensors, shards)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_tokenizer(folder)
    return folder


def _say_heads_once(text: dict[str, Any], config: Any) -> None:
    """Full layers' head sizes as releases say them."""
    layers = text.pop("per_layer_config")
    full = next(iter(layers.values()))
    text["global_head_dim"] = full["head_dim"]
    text["num_global_key_value_heads"] = full["num_key_value_heads"] if config.attention_k_eq_v else None


def _unread(model: Any) -> Tensors:
    """What a release holds besides: other senses, and projections of layers that read another layer's K/V."""
    config = model.config.text_config
    out: Tensors = {"model.embed_vision.embedding_projection.weight": torch.zeros(config.hidden_size, 4)}
    if isinstance(config, Gemma4UnifiedTextConfig):
        out["model.vision_embedder.patch_dense.weight"] = torch.zeros(4, 4)
    else:
        out["model.vision_tower.patch_embedder.input_proj.weight"] = torch.zeros(4, 4)
    first_shared = config.num_hidden_layers - config.num_kv_shared_layers
    for index in range(first_shared, config.num_hidden_layers):
        heads = config.per_layer_config[index]
        prefix, width = f"model.language_model.layers.{index}.self_attn", heads.num_key_value_heads * heads.head_dim
        out[f"{prefix}.k_proj.weight"] = torch.ones(width, config.hidden_size)
        out[f"{prefix}.v_proj.weight"] = torch.ones(width, config.hidden_size)
        out[f"{prefix}.k_norm.weight"] = torch.ones(heads.head_dim)
    return out
