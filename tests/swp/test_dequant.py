"""Stored weights → BF16, against torch's own arithmetic and the OCP table, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_checkpoints import Tensor
from swp_extracting import extract_here, shipped
from upstream_checkpoints import FP4, Built, Maker, bf16_of, deepseek, deepseek_fp8, fp4_values, qwen, write

from skulk_core.errors import UnsupportedTensor
from skulk_core.hub.stored_tensors import StoredTensor
from swp.dequant import shipped as dequantised
from swp.quantization import Values
from swp.recipes import Recipe

WEIGHT = "mtp.layers.0.self_attn.q_proj.weight"
MODULE = WEIGHT.removesuffix(".weight")


def test_every_fp8_code_under_every_e8m0_scale_is_what_torch_computes() -> None:
    """One wrong power of two anywhere is a head that accepts nothing, with no error to show for it."""
    codes, scales = torch.arange(256, dtype=torch.uint8), torch.arange(256, dtype=torch.uint8)
    weight = codes.repeat(256, 1)
    got = _run(Values.FP8, "F8_E4M3", weight, "F8_E8M0", scales[:, None], (1, 256))
    values = codes.view(torch.float8_e4m3fn).float()
    power = torch.from_numpy(np.ldexp(1.0, np.arange(256) - 127)).float()
    power[255] = float("nan")
    torch.testing.assert_close(got, (power[:, None] * values).to(torch.bfloat16), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(256, 256), (300, 200), (1, 130), (129, 1), (7, 5)])
def test_fp8_blocks_are_multiplied_and_edge_blocks_cropped(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    grid = (-(-shape[0] // 128), -(-shape[1] // 128))
    scale = torch.rand(grid, generator=generator) * 0.01
    got = _run(Values.FP8, "F8_E4M3", weight, "F32", scale, (128, 128))
    expected = torch.empty(shape, dtype=torch.bfloat16)
    for row in range(grid[0]):
        for column in range(grid[1]):
            part = (slice(128 * row, 128 * row + 128), slice(128 * column, 128 * column + 128))
            expected[part] = (weight[part].view(torch.float8_e4m3fn).float() * scale[row, column]).to(torch.bfloat16)
    assert torch.equal(got.view(torch.int16), expected.view(torch.int16)) or _nan_equal(got, expected)


def test_all_sixteen_fp4_codes_are_those_of_the_ocp_table() -> None:
    weight = torch.tensor([[code] for code in range(16)], dtype=torch.uint8)
    got = _run(Values.FP4, "I8", weight, "F8_E8M0", torch.full((16, 1), 127, dtype=torch.uint8), (1, 32))
    expected = torch.tensor([[FP4[code], 0.0] for code in range(16)]).to(torch.bfloat16)
    # compared as bits: minus zero is not zero
    assert torch.equal(got.view(torch.int16), expected.view(torch.int16))


def test_all_256_pairs_of_fp4_values_unpack_the_low_nibble_first() -> None:
    weight = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    got = _run(Values.FP4, "I8", weight, "F8_E8M0", torch.full((16, 1), 127, dtype=torch.uint8), (1, 32))
    expected = fp4_values(bytes(range(256)), (16, 32)).to(torch.bfloat16)
    assert torch.equal(got.view(torch.int16), expected.view(torch.int16))


def test_a_weight_larger_than_a_block_of_rows_is_the_same_as_in_one_piece() -> None:
    """Work is done in blocks of rows: nothing may shift at their seams."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(0, 120, (1500, 6000), dtype=torch.uint8, generator=generator)
    scale = torch.rand((12, 47), generator=generator)
    got = _run(Values.FP8, "F8_E4M3", weight, "F32", scale, (128, 128))
    spread = scale.repeat_interleave(128, 0)[:1500].repeat_interleave(128, 1)[:, :6000]
    assert torch.equal(got, (weight.view(torch.float8_e4m3fn).float() * spread).to(torch.bfloat16))


def test_half_and_single_precision_are_rounded_to_nearest_even(tmp_path: Path) -> None:
    built = qwen()
    # halfway between two neighbours of BF16, towards the even one both ways
    ties = np.array([0x3F808000, 0x3F818000, 0xBF808000, 0x7F7FFFFF], dtype="<u4").view("<f4")
    built.stored["mtp.fc.weight"] = Tensor("F32", (8, 16), np.resize(ties, 128).astype("<f4").tobytes())
    half = np.random.default_rng(0).standard_normal(64).astype("<f2")
    built.stored[WEIGHT] = Tensor("F16", (8, 8), half.tobytes())
    for name in built.stored:
        del built.head[name]
    built.made["mtp.fc.weight"] = bf16_of(torch.from_numpy(np.resize(ties, 128).copy()).reshape(8, 16))
    built.made[WEIGHT] = bf16_of(torch.from_numpy(half.astype("<f4")).reshape(8, 8))
    manifest = extract_here(write(tmp_path / "up", built), tmp_path / "out")
    assert shipped(tmp_path / "out") == built.shipped
    first = np.frombuffer(shipped(tmp_path / "out")["mtp.fc.weight"].data, dtype="<u2")[:4]
    assert list(first) == [0x3F80, 0x3F82, 0xBF80, 0x7F80]
    assert {t.recipe for t in manifest.tensors if t.name in built.made} == {"cast"}


def _channel(make: Maker) -> tuple[Built, dict[str, Any]]:
    built = qwen()
    del built.head[WEIGHT]
    built.stored[WEIGHT], values = make.fp8(8, 8)
    built.scales[f"{MODULE}.weight_scale"], scale = make.scale(8, 1)
    built.made[WEIGHT] = bf16_of(values * scale)
    return built, _compressed("float", "channel")


def _whole_tensor(make: Maker) -> tuple[Built, dict[str, Any]]:
    built = qwen()
    del built.head[WEIGHT]
    built.stored[WEIGHT], values = make.fp8(8, 8)
    built.scales[f"{MODULE}.weight_scale"], scale = make.scale()
    built.scales[f"{MODULE}.input_scale"] = make.scale()[0]
    built.made[WEIGHT] = bf16_of(values * scale)
    return built, {"quant_method": "modelopt", "quant_algo": "FP8"}


def _mixed(make: Maker) -> tuple[Built, dict[str, Any]]:
    built, _ = _whole_tensor(make)
    layers = {MODULE: {"quant_algo": "FP8"}}
    return built, {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}


def _int8(make: Maker) -> tuple[Built, dict[str, Any]]:
    built = qwen()
    del built.head[WEIGHT]
    built.stored[WEIGHT] = make.bits("I8", (8, 8), 1)
    values = torch.frombuffer(bytearray(built.stored[WEIGHT].data), dtype=torch.int8).float().reshape(8, 8)
    built.scales[f"{MODULE}.weight_scale"], scale = make.scale(8, 1)
    built.made[WEIGHT] = bf16_of(values * scale)
    return built, _compressed("int", "channel")


def _nvfp4(make: Maker, name: str, second: str, settings: dict[str, Any]) -> tuple[Built, dict[str, Any]]:
    built = qwen()
    weight, module = "mtp.fc.weight", "mtp.fc"
    del built.head[weight]
    packed = make.bits("U8", (8, 8), 1)
    built.stored[f"{module}.{name}"] = packed
    codes = bytes(range(56, 64))
    built.scales[f"{module}.weight_scale"] = Tensor("F8_E4M3", (8, 1), codes)
    group = torch.frombuffer(bytearray(codes), dtype=torch.float8_e4m3fn).float()[:, None]
    built.scales[f"{module}.{second}"] = Tensor("F32", (), np.float32(0.37).tobytes())
    whole = torch.tensor(0.37)
    scale = group * whole if second == "weight_scale_2" else group / whole
    built.made[weight] = bf16_of(fp4_values(packed.data, (8, 16)) * scale)
    return built, settings


def _compressed(kind: str, strategy: str, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": kind, "strategy": strategy, "symmetric": True, **more}
    return {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": weights}}}


def _nvfp4_modelopt(make: Maker) -> tuple[Built, dict[str, Any]]:
    return _nvfp4(make, "weight", "weight_scale_2", {"quant_method": "modelopt", "quant_algo": "NVFP4"})


def _nvfp4_compressed(make: Maker) -> tuple[Built, dict[str, Any]]:
    settings = _compressed("float", "tensor_group", num_bits=4, group_size=16)
    return _nvfp4(make, "weight_packed", "weight_global_scale", settings)


@pytest.mark.parametrize("make_case", [_channel, _whole_tensor, _mixed, _int8, _nvfp4_modelopt, _nvfp4_compressed])
def test_what_other_quantisers_declare_is_followed(make_case: Any, tmp_path: Path) -> None:
    built, quantization = make_case(Maker(11))
    built.config["quantization_config"] = quantization
    extract_here(write(tmp_path / "up", built, 4), tmp_path / "out")
    assert shipped(tmp_path / "out") == built.shipped


def test_what_modelopt_says_in_a_file_of_its_own_is_followed(tmp_path: Path) -> None:
    built, _ = _whole_tensor(Maker(12))
    folder = write(tmp_path / "up", built)
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (folder / "hf_quant_config.json").write_text(json.dumps(said))
    extract_here(folder, tmp_path / "out")
    assert shipped(tmp_path / "out") == built.shipped


def test_a_scale_may_be_in_another_file_than_its_weight(tmp_path: Path) -> None:
    built = deepseek_fp8()
    folder = write(tmp_path / "up", built, 3)
    where = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert any(where[name] != where[f"{name}_scale_inv"] for name in built.stored), "a test of nothing"
    manifest = extract_here(folder, tmp_path / "out")
    assert shipped(tmp_path / "out") == built.shipped
    one = next(record for record in manifest.tensors if record.recipe == "fp8_block")
    assert [piece.role for piece in one.source] == ["weight", "scale"]


PROJ = "model.layers.2.mlp.experts.0.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("no scale", (PROJ, "F8_E4M3", "no scale")),
        ("no declaration", (PROJ, "F8_E4M3", "no quantization_config")),
        ("other block", (f"{PROJ}_scale_inv", "F32", "needs [4, 8]")),
        ("unknown method", (PROJ, "gptq")),
        ("fp8 of another kind", (PROJ, "F8_E5M2", "not stored so")),
        ("scale of another kind", (f"{PROJ}_scale_inv", "I32")),
        ("integers", ("model.layers.2.mlp.gate.weight", "I32", "not stored so")),
    ],
)
def test_what_is_not_declared_or_not_as_declared_is_refused_by_name(
    change: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    """A guess that is wrong ships numbers that look right."""
    built = deepseek_fp8()
    match change:
        case "no scale":
            del built.scales[f"{PROJ}_scale_inv"]
        case "no declaration":
            del built.config["quantization_config"]
        case "other block":
            built.config["quantization_config"]["weight_block_size"] = [2, 2]
        case "unknown method":
            built.config["quantization_config"] = {"quant_method": "gptq"}
        case "fp8 of another kind":
            built.stored[PROJ] = Tensor("F8_E5M2", built.stored[PROJ].shape, built.stored[PROJ].data)
        case "scale of another kind":
            scale = built.scales[f"{PROJ}_scale_inv"]
            built.scales[f"{PROJ}_scale_inv"] = Tensor("I32", scale.shape, scale.data)
        case "integers":
            built.stored["model.layers.2.mlp.gate.weight"] = Tensor("I32", (4, 8), bytes(128))
            del built.head["model.layers.2.mlp.gate.weight"]
    with pytest.raises(UnsupportedTensor) as caught:
        extract_here(write(tmp_path / "up", built), tmp_path / "out")
    for word in words:
        assert word in str(caught.value)


def test_a_scale_that_nothing_uses_is_refused(tmp_path: Path) -> None:
    """Its weight would be shipped undivided and unmultiplied."""
    built = deepseek()
    built.head["model.layers.2.eh_proj.weight_scale_inv"] = Maker(0).f32(1, 1)
    with pytest.raises(UnsupportedTensor, match=r"eh_proj\.weight_scale_inv"):
        extract_here(write(tmp_path / "up", built), tmp_path / "out")


def _run(
    values: Values,
    dtype: str,
    weight: torch.Tensor,
    scale_dtype: str,
    scale: torch.Tensor,
    block: tuple[int, int],
) -> torch.Tensor:
    """A weight given as bytes `[rows, bytes of a row]`, dequantised, as `[rows, columns]`."""
    rows, row_nbytes = weight.shape
    columns = row_nbytes * (2 if values is Values.FP4 else 1)
    data, scale_data = weight.numpy().tobytes(), scale.view(torch.uint8).numpy().tobytes()
    recipe = Recipe(
        name="w",
        dtype="BF16",
        shape=(rows, columns),
        kind="",
        weight=StoredTensor("w", dtype, (rows, row_nbytes), "f", 0, len(data)),
        values=values,
        scale=StoredTensor("s", scale_dtype, tuple(scale.shape), "f", 0, len(scale_data)),
        block=block,
    )
    # in pieces that end nowhere near a row
    pieces = (data[at : at + 100_003] for at in range(0, len(data), 100_003))
    out = b"".join(dequantised(recipe, pieces, scale_data, b""))
    return torch.frombuffer(bytearray(out), dtype=torch.bfloat16).reshape(rows, columns)


def _nan_equal(got: torch.Tensor, expected: torch.Tensor) -> bool:
    same = (got == expected) | (got.isnan() & expected.isnan())
    return bool(same.all())
