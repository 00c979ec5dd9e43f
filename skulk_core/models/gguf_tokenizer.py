"""Tokenizer and chat template from a GGUF file's metadata, by transformers' own converter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

from skulk_core.errors import FileError
from skulk_core.models.gguf_file import GgufFile

_TOKENS = "tokenizer.ggml.tokens"
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
# vocabularies to which llama.cpp adds BOS where the file does not say
_BOS_MODELS = ("llama",)
_BOS_PRE = ("llama3", "llama-v3", "llama-bpe", "tekken")


def save_tokenizer(file: GgufFile, folder: Path) -> None:
    """Write the tokenizer of ``file`` to ``folder`` as released checkpoints have it. Raises `FileError`."""
    metadata = file.metadata
    tokens = metadata.get(_TOKENS)
    if not isinstance(tokens, list) or not tokens:
        raise FileError(file.path, f"no usable tokenizer: it has no {_TOKENS}")
    described = _renamed(metadata, "tokenizer")
    # of tokens spelled alike the last is the one that text becomes; the others must still have a spelling
    last = {token: index for index, token in enumerate(tokens)}
    described["tokens"] = [t if last[t] == index else f"[UNUSED{index}]" for index, t in enumerate(tokens)]
    settings = _renamed(metadata, "tokenizer_config")
    adds_bos = described.get("tokenizer_type") in _BOS_MODELS or described.get("pre_tokenizer_type") in _BOS_PRE
    settings.setdefault("add_bos_token", adds_bos)
    for name, key in _SPECIAL.items():
        token = metadata.get(f"tokenizer.ggml.{key}_token_id")
        settings[name] = None if token is None else tokens[token]
    backend, more = convert_gguf_tokenizer(metadata["general.architecture"], described)
    made: Any = PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **more)  # type: ignore[no-untyped-call]
    made.save_pretrained(folder)


def _renamed(metadata: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The metadata that transformers' converter knows, by its names for them."""
    renames = GGUF_TOKENIZER_MAPPING[group]
    return {name: metadata[f"tokenizer.{key}"] for key, name in renames.items() if f"tokenizer.{key}" in metadata}
