"""A small extracted sidecar on disk, made without extracting: what publishing starts from."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from skulk_core.formats.provenance import (
    FileRecord,
    Licence,
    Manifest,
    ModelFacts,
    Origin,
    SourceFile,
    SourcePiece,
    TensorRecord,
)
from skulk_core.formats.sidecar import SidecarMetadata, TrunkFingerprint
from skulk_core.types import Conventions
from swp.card import render

SOURCE = "Upstream/Tiny.Model-1B"
SHA = "0123456789abcdef0123456789abcdef01234567"
LICENCE_TEXT = b"Do as you like.\n"
TRUNK = TrunkFingerprint(4, 16, 2, 10000.0)
TENSORS = {"mtp.fc.weight": bytes(range(64)), "mtp.norm.weight": bytes(range(64, 72))}
SHAPES = {"mtp.fc.weight": (4, 8), "mtp.norm.weight": (4,)}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def safetensors_bytes(tensors: dict[str, bytes], metadata: dict[str, str]) -> bytes:
    """A file with BF16 tensors."""
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, content in tensors.items():
        header[name] = {"dtype": "BF16", "shape": SHAPES[name], "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def write_folder(
    folder: Path,
    *,
    tensors: dict[str, bytes] | None = None,
    licences: dict[str, bytes] | None = None,
    padding: int = 0,
    **changes: Any,
) -> Manifest:
    """Write the folder; `changes` are fields of its manifest, `padding` bytes make the sidecar larger."""
    tensors = tensors or TENSORS
    licences = {"LICENSE": LICENCE_TEXT} if licences is None else licences
    manifest = Manifest(
        source_repo=SOURCE,
        source_sha=SHA,
        origin=Origin.FETCHED,
        layout="qwen_mtp",
        num_heads=1,
        conventions=Conventions(),
        trunk=TRUNK,
        tensors=tuple(_record(name, content) for name, content in tensors.items()),
        shared=(),
        licence=Licence("apache-2.0"),
        files=(),
        compared=True,
        tool="swp 0.1.0",
        source_files=(SourceFile("model.safetensors", 1000, None),),
        model_facts=ModelFacts("qwen3_5"),
    )
    manifest = replace(manifest, **changes)
    metadata = SidecarMetadata(
        layout=manifest.layout,
        num_heads=manifest.num_heads,
        conventions=manifest.conventions,
        source_repo=manifest.source_repo,
        source_sha=manifest.source_sha,
        source_dtypes=("BF16",),
        shared_tensors=(),
        tool=manifest.tool,
        trunk=manifest.trunk,
    ).to_strings()
    sidecar = safetensors_bytes(tensors, metadata | ({"padding": "x" * padding} if padding else {}))
    contents = {"mtp.safetensors": sidecar, **licences}
    files = tuple(FileRecord(name, len(content), sha256(content)) for name, content in contents.items())
    manifest = replace(manifest, files=files)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "provenance.json").write_text(manifest.to_json(), encoding="utf-8")
    (folder / "README.md").write_text(render(manifest), encoding="utf-8")
    return manifest


def _record(name: str, content: bytes) -> TensorRecord:
    end, digest = 100 + len(content), sha256(content)
    piece = SourcePiece("weight", name, "model.safetensors", 100, end, "BF16", SHAPES[name], digest)
    return TensorRecord(name, "BF16", SHAPES[name], len(content), digest, (piece,), "copy")
