"""Tiny checkpoints on disk for rings, written without torch."""

import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from tiny_models import VOCAB, build, case
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def save_tiny(name: str, folder: Path) -> Path:
    """A tiny model of mlx-lm's in a folder, with a tokenizer of one word per token."""
    found = case(name, num_hidden_layers=4)
    model = build(found)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(found.config), encoding="utf-8")
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(VOCAB)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(folder)
    return folder
