"""The metadata of a sidecar: what is written is read back, and what is wrong is named by its key."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from skulk_core.errors import FormatError
from skulk_core.formats import sidecar
from skulk_core.formats.sidecar import NoMetadata, SidecarMetadata, TrunkFingerprint, from_strings
from skulk_core.hub.headers import read_metadata
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

FILE = Path("mtp.safetensors")

METADATA = SidecarMetadata(
    layout="qwen_mtp",
    num_heads=1,
    conventions=Conventions(norm_offset=1.0),
    source_repo="Qwen/Qwen3.5-2B-Base",
    source_sha="0123456789abcdef" * 2 + "01234567",
    source_dtypes=("BF16", "F32"),
    shared_tensors=("model.embed_tokens.weight", "lm_head.weight"),
    tool="skulk-mtp 0.1.0",
    trunk=TrunkFingerprint(hidden_size=2048, vocab_size=248320, num_layers=24, rope_theta=10_000_000.0),
)

# As version 1 wrote it. Files like this one are out in the world: it must keep loading, so it does not change.
SAMPLE_V1 = {
    "format": "pt",
    "mtp_sidecar.version": "1",
    "mtp_sidecar.layout": "qwen_mtp",
    "mtp_sidecar.num_heads": "1",
    "mtp_sidecar.norm_offset": "1.0",
    "mtp_sidecar.concat_order": "embedding_first",
    "mtp_sidecar.hidden_tap": "post_norm",
    "mtp_sidecar.chain_tap": "post_norm",
    "mtp_sidecar.position_rule": "running",
    "mtp_sidecar.source_repo": "Qwen/Qwen3.5-2B-Base",
    "mtp_sidecar.source_sha": "0123456789abcdef0123456789abcdef01234567",
    "mtp_sidecar.source_dtypes": '["BF16", "F32"]',
    "mtp_sidecar.shared_tensors": '["model.embed_tokens.weight", "lm_head.weight"]',
    "mtp_sidecar.tool": "skulk-mtp 0.1.0",
    "mtp_sidecar.trunk.hidden_size": "2048",
    "mtp_sidecar.trunk.vocab_size": "248320",
    "mtp_sidecar.trunk.num_layers": "24",
    "mtp_sidecar.trunk.rope_theta": "10000000.0",
}


def test_version_1_reads_and_writes_as_it_did() -> None:
    assert from_strings(FILE, SAMPLE_V1) == METADATA
    assert METADATA.to_strings() == SAMPLE_V1


@pytest.mark.parametrize(
    "metadata",
    [
        METADATA,
        replace(METADATA, source_sha="", source_dtypes=(), shared_tensors=(), num_heads=3),
        replace(METADATA, trunk=replace(METADATA.trunk, rope_theta=None)),
        replace(METADATA, shared_tensors=('odd "name", with comma',), tool="ünï 1"),
        replace(
            METADATA,
            conventions=Conventions(
                0.1, ConcatOrder.HIDDEN_FIRST, HiddenTap.PRE_NORM, ChainTap.PRE_NORM, PositionRule.BEFORE_LAST
            ),
        ),
    ],
)
def test_a_file_gives_back_what_was_written(tmp_path: Path, metadata: SidecarMetadata) -> None:
    file = tmp_path / "mtp.safetensors"
    save_file({"mtp.norm.weight": np.zeros(4, np.float32)}, file, metadata.to_strings())
    assert from_strings(file, read_metadata(file)) == metadata


@pytest.mark.parametrize("others", [{}, {"format": "pt"}, {"format": "pt", "mtp_version": "3"}])
def test_a_file_of_another_publisher_has_no_metadata(others: dict[str, str]) -> None:
    assert from_strings(FILE, others) == NoMetadata(tuple(sorted(others)))


def test_keys_of_other_tools_are_left_alone() -> None:
    assert from_strings(FILE, {**SAMPLE_V1, "modelspec.title": "x"}) == METADATA


@pytest.mark.parametrize("key", [key for key in SAMPLE_V1 if key != "format"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(FormatError, match="missing") as caught:
        from_strings(FILE, {k: v for k, v in SAMPLE_V1.items() if k != key})
    assert caught.value.where == f"metadata key {key}"
    assert caught.value.path == FILE


def test_a_newer_version_is_refused_before_its_keys_are_looked_at() -> None:
    with pytest.raises(FormatError, match="format version 2 is newer than 1"):
        from_strings(FILE, {"mtp_sidecar.version": "2", "mtp_sidecar.new": "?"})


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(FormatError, match=r"unknown key \(did you mean 'hidden_tap'\?\)") as caught:
        from_strings(FILE, {**SAMPLE_V1, "mtp_sidecar.hiden_tap": "post_norm"})
    assert caught.value.where == "metadata key mtp_sidecar.hiden_tap"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("version", "one", "whole number"),
        ("version", "0", "whole number"),
        ("layout", "", "empty"),
        ("num_heads", "0", "whole number"),
        ("num_heads", "1.0", "whole number"),
        ("num_heads", "٣", "whole number"),
        ("norm_offset", "a lot", "not a number"),
        ("norm_offset", "nan", "not a finite number"),
        ("concat_order", "embeding_first", "did you mean 'embedding_first'"),
        ("hidden_tap", "", "not one of post_norm, pre_norm"),
        ("chain_tap", "POST_NORM", "not one of"),
        ("position_rule", "constant", "not one of"),
        ("source_repo", "", "empty"),
        ("source_sha", "main", "40 hexadecimal digits"),
        ("source_sha", "0123456789ABCDEF0123456789ABCDEF01234567", "40 hexadecimal digits"),
        ("source_dtypes", "BF16", "JSON list"),
        ("shared_tensors", "[1]", "JSON list"),
        ("shared_tensors", '{"a": 1}', "JSON list"),
        ("tool", "", "empty"),
        ("trunk.hidden_size", "-1", "whole number"),
        ("trunk.vocab_size", "", "whole number"),
        ("trunk.num_layers", "0x10", "whole number"),
        ("trunk.rope_theta", "0", "not positive"),
        ("trunk.rope_theta", "inf", "not a finite number"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(key: str, value: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        from_strings(FILE, {**SAMPLE_V1, f"mtp_sidecar.{key}": value})
    assert caught.value.where == f"metadata key mtp_sidecar.{key}"


def test_the_documentation_lists_every_key_and_no_other() -> None:
    documented = set(re.findall(r"^    (mtp_sidecar\.[\w.]+)", sidecar.__doc__ or "", re.MULTILINE))
    assert documented | {"format"} == set(METADATA.to_strings())
