"""An upstream checkpoint: its configuration and where its tensors are, read from configuration, index and headers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.provenance import ModelFacts
from skulk_core.formats.sidecar import TrunkFingerprint
from skulk_core.hub.ranges import CheckpointFiles, read_small
from skulk_core.hub.stored_tensors import StoredTensors

CONFIG_FILE = "config.json"
_MODELOPT_FILE = "hf_quant_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """`config` is config.json, `text` the part of it that describes the text model: the same, or `text_config`.

    `modelopt` is what ModelOpt says of its quantisation where config.json does not; else empty.
    """

    files: CheckpointFiles
    config: Mapping[str, Any]
    text: Mapping[str, Any]
    tensors: StoredTensors
    modelopt: Mapping[str, Any]

    @staticmethod
    def read(files: CheckpointFiles) -> "Checkpoint":
        """Read configuration and index. Raises `FileError`, `FormatError` and the Hub's errors."""
        if CONFIG_FILE not in files.names:
            raise FileError(str(files), f"has no {CONFIG_FILE}")
        config = _read_object(files, CONFIG_FILE)
        nested = config.get("text_config")
        text = nested if isinstance(nested, dict) else config
        modelopt = _read_object(files, _MODELOPT_FILE) if _MODELOPT_FILE in files.names else {}
        return Checkpoint(files, config, text, StoredTensors.of(files), modelopt)

    @property
    def model_types(self) -> tuple[str, ...]:
        """`model_type` of the whole and of its text model."""
        found = (self.config.get("model_type"), self.text.get("model_type"))
        return tuple(dict.fromkeys(kind for kind in found if isinstance(kind, str)))

    @property
    def num_trunk_layers(self) -> int:
        """Number of the trunk's layers. Raises `FormatError` if the configuration does not say it."""
        return self._positive("num_hidden_layers", "num_layers")

    def facts(self) -> ModelFacts:
        """What the card says of the model. Raises `FormatError` without a model type."""
        if not self.model_types:
            raise FormatError(CONFIG_FILE, "model_type", "missing")
        architectures = self.config.get("architectures")
        named = tuple(map(str, architectures)) if isinstance(architectures, list) else ()
        method = self.quantization.get("quant_method")
        return ModelFacts(self.model_types[0], named, method if isinstance(method, str) else None)

    def fingerprint(self) -> TrunkFingerprint:
        """What must agree between head and trunk. Raises `FormatError` naming the key that is missing."""
        return TrunkFingerprint(
            self._positive("hidden_size", "n_embd"), self._positive("vocab_size"), self.num_trunk_layers, self._theta()
        )

    @property
    def quantization(self) -> Mapping[str, Any]:
        """`quantization_config`, empty for a model that is not quantised."""
        for part in (self.config, self.text):
            if isinstance(found := part.get("quantization_config"), dict):
                return found
        return {"quant_method": "modelopt", **self.modelopt} if self.modelopt else {}

    def _positive(self, *keys: str) -> int:
        for key in keys:
            value = self.text.get(key)
            if type(value) is int and value > 0:
                return value
        raise FormatError(CONFIG_FILE, keys[0], f"missing, or no whole number from 1, in {self.files}")

    def _theta(self) -> float | None:
        """RoPE's base: of all layers, or of the first kind of layer that has one; None for a trunk without rotation."""
        scaling = self.text.get("rope_parameters") or self.text.get("rope_scaling")
        groups = [self.text]
        if isinstance(scaling, dict):
            groups += [scaling, *(value for value in scaling.values() if isinstance(value, dict))]
        for group in groups:
            value = group.get("rope_theta")
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(value)
        return None


def _read_object(files: CheckpointFiles, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads(read_small(files, name))
    except (ValueError, RecursionError) as error:
        raise FormatError(name, str(files), "is not JSON") from error
    if not isinstance(content, dict):
        raise FormatError(name, str(files), "is not a JSON object")
    return content
