"""What is wrong with a GGUF file is said in one sentence that names it, before MLX takes its bytes for something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tiny_gguf import gguf_case, write_gguf

from skulk_core.errors import FileError, SkulkError, UnsupportedArchitecture, UnsupportedQuantization
from skulk_core.models.loading import load

LLAMA = gguf_case("llama")
Tensors = dict[str, np.ndarray]


def refusal(file: Path) -> SkulkError:
    """Why ``file`` cannot be loaded; it must be named."""
    with pytest.raises(SkulkError) as raised:
        load(file)
    assert str(file) in str(raised.value)
    return raised.value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("whole") / "m.gguf"
    write_gguf(file, LLAMA, "Q8_0")
    return file.read_bytes()


def test_cut_off_anywhere(tmp_path: Path, whole: bytes) -> None:
    """An incomplete download never becomes a model, nor a crash, wherever it ends."""
    rng = np.random.default_rng(0)
    file = tmp_path / "m.gguf"
    for size in (5, 20, 30, 100, 3000, *rng.integers(24, len(whole) - 200, 40).tolist()):
        file.write_bytes(whole[:size])
        assert "truncated" in str(refusal(file)), size


def test_bytes_turned_over_in_the_declarations(tmp_path: Path, whole: bytes) -> None:
    """A damaged file is refused, or at worst read as another name or number: it never crashes the process."""
    rng = np.random.default_rng(1)
    file = tmp_path / "m.gguf"
    refused = 0
    for at in rng.integers(4, 9000, 60).tolist():
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            load(file)
        except SkulkError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"GGU", "not a GGUF file"),
        (b"ggml and more of it", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file"),
        (b"GGUF" + b"\x00\x00\x00\x03" + bytes(16), "GGUF version 50331648"),
        (b"GGUF" + b"\x01\x00\x00\x00" + bytes(16), "GGUF version 1;"),
        (b"GGUF" + b"\x03\x00\x00\x00" + bytes(16), "names no general.architecture"),
    ],
)
def test_something_else(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert words in str(refusal(tmp_path / "m.gguf"))


@pytest.mark.parametrize("kind", ["Q2_K", "Q4_K", "Q6_K", "Q5_0", "IQ4_NL", "MXFP4", "I32"])
def test_a_kind_that_mlx_reads_wrongly_or_not_at_all(tmp_path: Path, kind: str) -> None:
    """MLX itself makes float16 of some K-quants, wrong numbers of others, and leaves out what it does not know."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    wanted = gguf.GGMLQuantizationType[kind]
    per_block, nbytes = gguf.GGML_QUANT_SIZES[wanted]
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    stored = np.zeros((8, 256 // per_block * nbytes), np.uint8)
    writer.add_tensor("blk.0.ffn_up.weight", stored.view(np.int32) if kind == "I32" else stored, raw_dtype=wanted)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    error = refusal(tmp_path / "m.gguf")
    assert isinstance(error, UnsupportedQuantization)
    assert error.kinds == {kind: "blk.0.ffn_up.weight"}
    assert f"{kind} (such as blk.0.ffn_up.weight)" in str(error)
    assert "Q8_0" in error.readable


def test_an_architecture_that_is_not_served(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "bloom")
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    error = refusal(tmp_path / "m.gguf")
    assert isinstance(error, UnsupportedArchitecture)
    assert "'bloom'" in str(error)
    assert "llama" in error.supported


def without(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def reshaped(name: str, *shape: int) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})


TENSORS: dict[str, tuple[Callable[[Tensors], object], list[str]]] = {
    "missing": (without("blk.1.attn_v.weight"), ["no tensor for model.layers.1.self_attn.v_proj.weight"]),
    "two missing": (lambda t: (t.pop("blk.1.attn_v.weight"), t.pop("output_norm.weight")), ["and 1 more"]),
    "no embedding": (without("token_embd.weight"), ["has no tensor token_embd.weight"]),
    "an embedding of one dimension": (reshaped("token_embd.weight", 8), ["token_embd.weight is [8]"]),
    "another shape": (reshaped("blk.0.ffn_up.weight", 95, 64), ["blk.0.ffn_up.weight is [95, 64]", "[96, 64]"]),
    "one too many": (reshaped("blk.0.attn_sinks.weight", 4), ["has tensor blk.0.attn_sinks.weight"]),
    "a layer too many": (reshaped("blk.3.attn_q.weight", 64, 64), ["has tensor blk.3.attn_q.weight"]),
    "too few factors": (reshaped("rope_freqs.weight", 3), ["rope_freqs.weight does not hold 8 positive factors"]),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_make_no_model(tmp_path: Path, what: str) -> None:
    change, words = TENSORS[what]
    write_gguf(tmp_path / "m.gguf", LLAMA, tensors=change)
    message = str(refusal(tmp_path / "m.gguf"))
    for word in words:
        assert word in message


def valued(key: str, value: Any) -> Callable[[gguf.GGUFWriter], object]:
    """Metadata with ``key`` set, or removed by None."""

    def change(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop(key, None)
        kinds = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
        if value is not None:
            kinds[type(value)](key, value)

    return change


METADATA: dict[str, tuple[str, Any, str]] = {
    "no number of layers": ("llama.block_count", None, "llama.block_count must be one number: no value"),
    "a word for a number": ("llama.embedding_length", "many", "llama.embedding_length must be one number: many"),
    "heads that differ by layer": ("llama.attention.head_count", [4, 2, 4], "[4, 2, 4] was found"),
    "no heads": ("llama.attention.head_count", 0, "0 heads share 2"),
    "keys that heads cannot share": ("llama.attention.head_count_kv", 3, "4 heads share 3"),
    "billions of layers": ("llama.block_count", 4_000_000_000, "4,000,000,000 layers"),
    "more layers than the file has": ("llama.block_count", 4, "has no tensor for model.layers.3."),
    "a scaling nobody has": ("llama.rope.scaling.type", "wild", "'wild'"),
    "scaled logits": ("llama.logit_scale", 0.5, "llama.logit_scale"),
    "half a head turned": ("llama.rope.dimension_count", 8, "turns 8 of 16 dimensions"),
    "values longer than keys": ("llama.attention.value_length", 32, "keys are 16 long"),
    "one of several parts": ("split.count", 3, "one of 3 parts"),
    "no vocabulary": ("tokenizer.ggml.tokens", None, "no usable tokenizer: it has no tokenizer.ggml.tokens"),
    "no merges": ("tokenizer.ggml.merges", None, "no usable tokenizer"),
    "a kind of tokenizer nobody knows": ("tokenizer.ggml.model", "runes", "no usable tokenizer"),
    "an end that is no token": ("tokenizer.ggml.eos_token_id", 99999, "no usable tokenizer"),
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_that_make_no_model(tmp_path: Path, what: str) -> None:
    key, value, words = METADATA[what]

    def change(writer: gguf.GGUFWriter) -> None:
        if key.startswith("llama.rope.scaling"):
            writer.add_rope_scaling_factor(2.0)
        valued(key, value)(writer)

    write_gguf(tmp_path / "m.gguf", LLAMA, metadata=change)
    error = refusal(tmp_path / "m.gguf")
    assert isinstance(error, FileError)
    assert words in str(error)


def test_blocks_where_a_module_takes_none(tmp_path: Path) -> None:
    def pack(tensors: Tensors) -> None:
        tensors["output_norm.weight"] = gguf.quants.quantize(np.ones(64, np.float32), gguf.GGMLQuantizationType.Q8_0)

    write_gguf(tmp_path / "m.gguf", LLAMA, "Q8_0", tensors=pack)
    assert "tensor output_norm.weight is Q8_0" in str(refusal(tmp_path / "m.gguf"))
