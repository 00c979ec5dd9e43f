"""Knowing a model by the numbers in its config.json."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from skulk_core.formats.catalog import Fingerprint

# Where families write the number of routed experts.
_EXPERT_KEYS = ("num_experts", "n_routed_experts", "num_local_experts")
# Where multimodal models keep what is said of their text model.
_TEXT_KEYS = ("text_config", "llm_config", "language_config")
# A head made for other values of these cannot be the model's.
_DECISIVE = ("hidden_size", "num_hidden_layers")


def fingerprint_of(config: Mapping[str, Any]) -> Fingerprint | str:
    """The fingerprint of a model with this config.json, or a sentence that says what it lacks.

    A multimodal model is known by its text model, which stands under `text_config` or a like key.
    """
    inner = next((part for key in _TEXT_KEYS if isinstance(part := config.get(key), Mapping)), config)
    model_type = inner.get("model_type") or config.get("model_type")
    if not isinstance(model_type, str):
        return "it names no model_type"
    hidden_size, num_layers = _count(inner, "hidden_size"), _count(inner, "num_hidden_layers")
    vocab_size = _count(inner, "vocab_size") or _count(config, "vocab_size")
    if hidden_size is None or num_layers is None or vocab_size is None:
        found = {"hidden_size": hidden_size, "num_hidden_layers": num_layers, "vocab_size": vocab_size}
        return f"it has no {' and no '.join(key for key, value in found.items() if value is None)}"
    return Fingerprint(
        model_type=family(model_type),
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        num_hidden_layers=num_layers,
        num_attention_heads=_count(inner, "num_attention_heads"),
        num_key_value_heads=_count(inner, "num_key_value_heads"),
        num_experts=next((count for key in _EXPERT_KEYS if (count := _count(inner, key)) is not None), None),
    )


def family(model_type: str) -> str:
    """A model type without the ending that marks the text part of a multimodal one."""
    return model_type.removesuffix("_text")


def differences(known: Fingerprint, found: Fingerprint) -> tuple[str, ...]:
    """Where `found` is not as the catalog's `known` says, each as `KEY IS, not KNOWN`; empty where they agree.

    What `known` leaves out is not compared.
    """
    expected = asdict(known) | {"model_type": family(known.model_type)}
    actual = asdict(found)
    return tuple(
        f"{key} {_shown(actual[key])}, not {value}"
        for key, value in expected.items()
        if value is not None and actual[key] != value
    )


def contradictions(known: Fingerprint, found: Fingerprint) -> tuple[str, ...]:
    """Those of `differences` that rule out that a head made for the one fits the other.

    A finetune may have more tokens than its base, and a save in another format may leave keys out; hidden size and
    number of layers stay.
    """
    return tuple(text for text in differences(known, found) if text.startswith(_DECISIVE))


def _count(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
