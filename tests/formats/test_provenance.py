"""The manifest of an extracted sidecar: what is written is read, and what is damaged is told by key."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.provenance import (
    FileRecord,
    Licence,
    Manifest,
    ModelFacts,
    Origin,
    SharedTensor,
    SourceFile,
    SourcePiece,
    TensorRecord,
    read_manifest,
)
from skulk_core.formats.sidecar import TrunkFingerprint
from skulk_core.types import ConcatOrder, Conventions

HEX = "ab" * 32
PIECE = SourcePiece("weight", "mtp.w", "model.safetensors", 10, 18, "F8_E4M3", (2, 4), HEX)
MANIFEST = Manifest(
    source_repo="owner/model",
    source_sha="c" * 40,
    origin=Origin.FETCHED,
    layout="nextn",
    num_heads=2,
    conventions=Conventions(norm_offset=1.0, concat_order=ConcatOrder.HIDDEN_FIRST),
    trunk=TrunkFingerprint(8, 24, 2, None),
    tensors=(TensorRecord("mtp.w", "BF16", (2, 4), 16, HEX, (PIECE, replace(PIECE, role="scale")), "fp8_block"),),
    shared=(SharedTensor("mtp.e", "e", 8, "whole", PIECE, PIECE),),
    licence=Licence(("mit", "other"), "a name", "a/link"),
    files=(FileRecord("mtp.safetensors", 100, HEX), FileRecord("LICENSE", 5, HEX)),
    compared=True,
    tool="swp 1.2.3",
    source_files=(SourceFile("model.safetensors", 1000, HEX), SourceFile("b.safetensors", 5, None)),
    model_facts=ModelFacts("deepseek_v3", ("A", "B"), "fp8"),
)


def write(folder: Path, text: str) -> Path:
    (folder / "provenance.json").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "manifest",
    [
        MANIFEST,
        replace(MANIFEST, licence=Licence(), layout_asked="nextn", origin=Origin.ASSERTED, compared=False),
        replace(MANIFEST, licence=Licence('say "no"\n---\né'), shared=(), trunk=TrunkFingerprint(1, 1, 1, 1e6)),
    ],
)
def test_what_is_written_is_read_again(manifest: Manifest, tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path, manifest.to_json())) == manifest
    assert read_manifest(tmp_path / "provenance.json").to_json() == manifest.to_json()


def test_it_is_an_in_toto_statement_with_slsa_provenance() -> None:
    """Tools that know nothing of us check the files by it."""
    content = json.loads(MANIFEST.to_json())
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [(one["name"], one["digest"]) for one in content["subject"]] == [
        ("mtp.safetensors", {"sha256": HEX}),
        ("LICENSE", {"sha256": HEX}),
    ]
    definition = content["predicate"]["buildDefinition"]
    assert set(definition) == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert definition["resolvedDependencies"][0]["digest"] == {"gitCommit": "c" * 40}
    assert content["predicate"]["runDetails"]["builder"]["version"] == {"swp": "1.2.3"}


def damaged(change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(MANIFEST.to_json())
    change(content)
    return json.dumps(content)


def definition(content: dict[str, Any]) -> dict[str, Any]:
    found = content["predicate"]["buildDefinition"]
    assert isinstance(found, dict)
    return found


def internal(content: dict[str, Any]) -> dict[str, Any]:
    found = definition(content)["internalParameters"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(_type="x"), "_type"),
        (lambda c: c["subject"][0].update(name="../evil"), r"subject\[0\].name"),
        (lambda c: c["subject"][0].update(name="/etc/passwd"), r"subject\[0\].name"),
        (lambda c: c["subject"][1]["digest"].update(sha256="AB"), r"subject\[1\].digest.sha256"),
        (lambda c: definition(c).update(buildType="urn:other"), "buildType"),
        (lambda c: internal(c).update(schema=2), "schema.*reads schema 1"),
        (lambda c: internal(c).update(layuot="x"), "layuot: unknown key .did you mean 'layout'"),
        (lambda c: internal(c).pop("layout"), "layout: missing"),
        (lambda c: internal(c).update(num_heads=0), "num_heads"),
        (lambda c: internal(c).update(origin="copied"), "origin"),
        (lambda c: internal(c)["tensors"][0].update(shape=[1.5]), r"tensors\[0\].shape"),
        (lambda c: internal(c)["tensors"][0]["source"][1].update(end=3), r"tensors\[0\].source\[1\].end"),
        (lambda c: definition(c)["externalParameters"].update(source="a/b@main"), "externalParameters.source"),
        (lambda c: definition(c).update(resolvedDependencies=[]), "resolvedDependencies: is empty"),
        (lambda c: definition(c)["resolvedDependencies"][0].pop("digest"), "gitCommit"),
    ],
)
def test_what_breaks_the_schema_is_told_by_key(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=words):
        read_manifest(write(tmp_path, damaged(change)))


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        read_manifest(tmp_path / "provenance.json")
    for text, words in (("{", "is not JSON"), ("[]", "must be an object"), ("[" * 100_000, "JSON")):
        with pytest.raises(FormatError, match=words):
            read_manifest(write(tmp_path, text))


def test_keys_that_later_standards_add_are_ignored(tmp_path: Path) -> None:
    text = damaged(lambda c: (c.update(new=1), c["predicate"].update(more={}), c["subject"][0].update(uri="x")))
    assert read_manifest(write(tmp_path, text)) == MANIFEST
