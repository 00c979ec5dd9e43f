"""A head out of a checkpoint of four gigabytes: what is fetched, and how much memory that takes.

The files are sparse: they take no space, and reading them costs little. By default the head has 60 MB;
`SWP_TEST_LARGE=1` makes it 500 MB.
"""

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from swp_hub import SwpHub
from swp_worker import Worker
from upstream_checkpoints import CARD, LICENCE, config

from skulk_core.formats.provenance import read_manifest
from skulk_core.hub.headers import read_headers

TRUNK_NBYTES = 4 << 30
EXPERT = (2048, 2048)
NUM_EXPERTS = 120 if os.environ.get("SWP_TEST_LARGE") else 14
MARGIN_NBYTES = 100_000_000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own peak of a process is read from /proc")


def sparse_file(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], int]], filled: dict[str, bytes]) -> None:
    """A safetensors file of zeros, but for the tensors `filled`."""
    header, at = {}, 0
    for name, (dtype, shape, nbytes) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        begin = stream.tell()
        for name, data in filled.items():
            stream.seek(begin + header[name]["data_offsets"][0])  # type: ignore[call-overload]
            stream.write(data)
        stream.truncate(begin + at)


def large_checkpoint(folder: Path) -> dict[str, bytes]:
    """Write it; what the tensors hold that are not zero."""
    folder.mkdir()
    layer, rng = "model.layers.2.", np.random.default_rng(0)
    trunk = {
        "model.embed_tokens.weight": ("BF16", (24, 8), 384),
        "model.layers.0.mlp.up_proj.weight": ("BF16", (TRUNK_NBYTES // 2, 1), TRUNK_NBYTES),
    }
    head: dict[str, tuple[str, tuple[int, ...], int]] = {
        f"{layer}{name}.weight": ("BF16", (8,), 16) for name in ("enorm", "hnorm", "shared_head.norm", "eh_proj")
    }
    grid = (EXPERT[0] // 128, EXPERT[1] // 128)
    filled = {}
    for expert in range(NUM_EXPERTS):
        name = f"{layer}mlp.experts.{expert}.up_proj.weight"
        head[name] = ("F8_E4M3", EXPERT, EXPERT[0] * EXPERT[1])
        head[f"{name}_scale_inv"] = ("F32", grid, 4 * grid[0] * grid[1])
        filled[f"{name}_scale_inv"] = rng.uniform(0.5, 1, grid).astype("<f4").tobytes()
    filled[f"{layer}mlp.experts.3.up_proj.weight"] = rng.integers(0, 126, EXPERT).astype(np.uint8).tobytes()
    sparse_file(folder / "model.safetensors", trunk | head, filled)
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    settings = config("deepseek_v3", num_nextn_predict_layers=1, quantization_config=quantization)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_bytes(LICENCE)
    return filled


def test_a_head_of_a_large_checkpoint_costs_its_own_bytes_and_little_memory(tmp_path: Path) -> None:
    """Nobody has the memory, or the patience, for the whole of a model of hundreds of gigabytes."""
    filled = large_checkpoint(tmp_path / "up")
    with SwpHub() as hub:
        repo = hub.add("owner/large", tmp_path / "up")
        worker = Worker(hub.url, tmp_path / "home")
        ended = worker.extract("owner/large", tmp_path / "out", measure=True)
        worker.close()
    assert not ended.error, ended.message
    manifest = read_manifest(tmp_path / "out")
    assert (tmp_path / "up" / "model.safetensors").stat().st_size > TRUNK_NBYTES
    read = sum(piece.nbytes for record in manifest.tensors for piece in record.source)
    headers = 8 + struct.unpack("<Q", (tmp_path / "up" / "model.safetensors").open("rb").read(8))[0]
    assert read < repo.sent_weights_nbytes <= 1.05 * read + headers
    largest = max(record.nbytes for record in manifest.tensors)
    peak: Any = ended.answer["peak_nbytes"]
    assert 0 < peak <= 2 * largest + MARGIN_NBYTES
    assert sum(record.nbytes for record in manifest.tensors) > 2 * largest + MARGIN_NBYTES, "a test of nothing"
    check_one_tensor(tmp_path / "out" / "mtp.safetensors", filled)


def check_one_tensor(sidecar: Path, filled: dict[str, bytes]) -> None:
    """The one expert that is not zero is torch's product of values and scales."""
    from safetensors import safe_open

    name = "model.layers.2.mlp.experts.3.up_proj.weight"
    values = torch.frombuffer(bytearray(filled[name]), dtype=torch.float8_e4m3fn).float().reshape(EXPERT)
    scale = torch.frombuffer(bytearray(filled[f"{name}_scale_inv"]), dtype=torch.float32).reshape(
        EXPERT[0] // 128, EXPERT[1] // 128
    )
    expected = (values * scale.repeat_interleave(128, 0).repeat_interleave(128, 1)).to(torch.bfloat16)
    with safe_open(sidecar, "pt") as file:
        assert torch.equal(file.get_tensor(name), expected)
    assert len(read_headers(sidecar)) == 4 + NUM_EXPERTS
