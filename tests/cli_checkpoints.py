"""Small checkpoints and sidecars on disk, whole and broken, made from the demo's.

Needs neither MLX nor the code under test.
"""

import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parent.parent / "skulk_core" / "_data"
DEMO = DATA / "demo"
DEMO_SIDECAR = DATA / "demo-sidecar" / "mtp.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

_H, _HEADS, _LAYERS, _VOCAB = 32, 2, 2, 4096


@dataclass(frozen=True)
class Tensor:
    """One tensor as the file has it, in the format's own dtype names."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), content[start + begin : start + end])
    return tensors, metadata


def write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + len(tensor.data)]}
        at += len(tensor.data)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(t.data for t in tensors.values()))
    return path


def demo_copy(folder: Path, **config: Any) -> Path:
    """The demo's checkpoint as a folder of its own, with keys of its configuration set, or removed by None."""
    shutil.copytree(DEMO, folder)
    if config:
        file = folder / "config.json"
        merged = {**json.loads(file.read_text()), **config}
        file.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))
    return folder


def demo_with_own_head(folder: Path) -> Path:
    """The demo's checkpoint with the head among its own tensors, as its family is released."""
    demo_copy(folder)
    file = folder / "model.safetensors"
    write_file(file, read_file(file)[0] | read_file(DEMO_SIDECAR)[0])
    return folder


def sidecar(path: Path, *, without: str = "", surplus: str = "", **metadata: str | None) -> Path:
    """The demo's sidecar without a tensor, with one too many, or with other metadata (dots written ``__``).

    ``version=None`` leaves all metadata out.
    """
    tensors, said = read_file(DEMO_SIDECAR)
    if without:
        del tensors[without]
    if surplus:
        tensors[surplus] = tensors["mtp.norm.weight"]
    changed = {f"mtp_sidecar.{key.replace('__', '.')}": value for key, value in metadata.items()}
    if "mtp_sidecar.version" in changed and changed["mtp_sidecar.version"] is None:
        said, changed = {}, {}
    return write_file(path, tensors, said | {key: value for key, value in changed.items() if value is not None})


def plain_llama(folder: Path) -> Path:
    """A random two-layer Llama with the demo's tokenizer: a model that no head was ever made for."""
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(DEMO / name, folder)
    config = {
        "model_type": "llama",
        "hidden_size": _H,
        "intermediate_size": 2 * _H,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "vocab_size": _VOCAB,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCAB, _H), "model.norm.weight": (_H,)}
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}{norm}.weight": (_H,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{prefix}self_attn.{name}_proj.weight": (_H, _H) for name in "qkvo"}
        shapes |= {f"{prefix}mlp.{name}_proj.weight": (2 * _H, _H) for name in ("gate", "up")}
        shapes[f"{prefix}mlp.down_proj.weight"] = (_H, 2 * _H)
    rng = np.random.default_rng(0)
    tensors = {name: Tensor("F32", shape, _drawn(rng, shape)) for name, shape in shapes.items()}
    write_file(folder / "model.safetensors", tensors)
    return folder


def _drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> bytes:
    return rng.standard_normal(shape).astype("<f4").tobytes()
