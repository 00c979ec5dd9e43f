"""What a Gemma 4 configuration means, in mlx-lm's words.

mlx-lm reads the released files. A fine-tune saved by transformers says the same in other words: what is as
transformers' default is left out, where mlx-lm has other defaults (transformers' `Gemma4TextConfig` and
`Gemma4UnifiedTextConfig` against mlx-lm's `gemma4_text.ModelArgs`), and since 5.23 the heads of full-attention layers
are listed layer by layer.
"""

from collections.abc import Mapping
from typing import Any

# transformers' defaults where mlx-lm's are others
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "final_logit_softcapping": None,
}
_UNIFIED_DEFAULTS: dict[str, Any] = {
    **_DEFAULTS,
    "max_position_embeddings": 262_144,
    "sliding_window": 1024,
    # these models have no such thing, and transformers' configuration no such entry
    "hidden_size_per_layer_input": 0,
}
# Sliding layers to a full one where nothing is said.
_SLIDING_LAYERS = 5


def config_changes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Entries to replace in ``config``, a multimodal checkpoint's or a text part's alone, so that mlx-lm reads it.

    Raises ValueError for heads that differ among full-attention layers, which mlx-lm has no words for.
    """
    nested = config.get("text_config")
    if not isinstance(nested, Mapping):
        return {**_text(config), "model_type": "gemma4_text"}
    text = _text(nested)
    # mlx-lm takes the vocabulary's size from here, the released one if it is not here
    return {"text_config": text, "vocab_size": text["vocab_size"]}


def _text(said: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a text part."""
    unified = str(said.get("model_type", "")).startswith("gemma4_unified")
    text = {**(_UNIFIED_DEFAULTS if unified else _DEFAULTS), **said}
    if text.get("layer_types") is None:
        kinds = ["sliding_attention"] * _SLIDING_LAYERS + ["full_attention"]
        layers = range(text["num_hidden_layers"])
        # the last layer is a full one, whatever the pattern
        text["layer_types"] = [kinds[index % len(kinds)] for index in layers[:-1]] + ["full_attention"]
    return {**text, **_heads_of_full_layers(said.get("per_layer_config"))}


def _heads_of_full_layers(per_layer: Any) -> dict[str, Any]:
    """Head sizes that a configuration lists layer by layer, said once."""
    if not isinstance(per_layer, Mapping):
        return {}
    # what is not listed is as in all layers, which mlx-lm has another default for
    heads: dict[str, Any] = {"global_head_dim": None, "num_global_key_value_heads": None}
    if not per_layer:
        return heads
    listed = list(per_layer.values())
    if any(layer != listed[0] for layer in listed):
        raise ValueError("per_layer_config: full-attention layers whose heads differ")
    names = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
    unknown = set(listed[0]) - set(names)
    if unknown:
        raise ValueError(f"per_layer_config: {', '.join(sorted(unknown))}")
    return heads | {names[name]: value for name, value in listed[0].items()}
