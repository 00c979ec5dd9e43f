"""A vindex is checked file by file, here and where it was published, and published like a sidecar."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_writing import TOKEN
from huggingface_hub import ModelCard
from larql_standin import MODEL, Bench, bench
from typer.testing import CliRunner

from cli.swp import make_app
from skulk_core.errors import DigestMismatch, FormatError, LicenceUnknown
from skulk_core.formats.catalog import VindexEntry, read_catalog
from skulk_core.formats.provenance import Licence
from skulk_core.formats.statement import MANIFEST_FILE
from skulk_core.formats.vindex import read_vindex
from swp.vindex_card import render_vindex, vindex_publication
from swp.vindex_check import check_vindex

OUT = "tiny-model-1b-q4k-vindex"
REPO = f"org/{OUT}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("desk")) as made:
        finished = made.run("vindex", "extract", MODEL)
        assert finished.code == 0, finished.stderr
        yield made


@pytest.fixture
def folder(desk: Bench, tmp_path: Path) -> Path:
    """A copy to do something to."""
    return Path(shutil.copytree(desk.home / OUT, tmp_path / "vindex"))


def differences(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in check_vindex(folder, read_vindex(folder)) if not check.ok}


def test_an_untouched_folder_has_no_differences(folder: Path) -> None:
    checks = check_vindex(folder, read_vindex(folder))
    assert [check.name for check in checks] == ["LICENSE", "NOTICE.txt", "gate.bin", "index.json", "layers/0.bin"]
    assert differences(folder) == {}


def test_every_kind_of_difference_is_named(folder: Path) -> None:
    """`index.json` has a checksum of gate.bin only: a change of any other file would pass there."""
    layer = folder / "layers" / "0.bin"
    layer.write_bytes(b"W" + layer.read_bytes()[1:])
    (folder / "gate.bin").write_bytes(b"shorter")
    (folder / "NOTICE.txt").unlink()
    (folder / "layers" / "1.bin").write_bytes(b"")
    (folder / "more").symlink_to("LICENSE")
    (folder / "index.json").unlink()
    (folder / "index.json").symlink_to("nowhere")
    found = differences(folder)
    assert list(found) == ["NOTICE.txt", "gate.bin", "index.json", "layers/0.bin", "layers/1.bin", "more"]
    assert found["NOTICE.txt"] == "is missing"
    assert found["gate.bin"].startswith("has 7 bytes, the manifest says")
    assert "cannot be read" in found["index.json"]
    assert found["layers/0.bin"].startswith("has the sha256")
    assert found["layers/1.bin"] == found["more"] == "is not in the manifest"


def test_verify_says_what_differs_and_fails(desk: Bench, folder: Path) -> None:
    (folder / "gate.bin").write_bytes(b"other")
    finished = desk.run("vindex", "verify", folder)
    assert finished.code == 1
    assert "DIFFERS  gate.bin: has 5 bytes" in finished.stdout
    assert "1 of 5 files differ" in finished.stdout


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("urn:skulk-mtp:vindex:v1", "urn:other", "predicate.buildDefinition.buildType"),
        ('"schema": 1', '"schema": 2', "predicate.buildDefinition.internalParameters.schema"),
        ('"quant": "q4k"', '"quant": 4', "predicate.buildDefinition.externalParameters.quant"),
        ('"slice"', '"slize"', "predicate.buildDefinition.externalParameters.slize"),
        (f"{MODEL}@", "", "predicate.buildDefinition.externalParameters.source"),
        ('"name": "layers/0.bin"', '"name": "../0.bin"', "subject[4].name"),
        ('"gitCommit": "', '"gitCommit": "0', "predicate.buildDefinition.resolvedDependencies[0].digest"),
        (f'"name": "{MODEL}"', '"name": "other/Model"', "predicate.buildDefinition.resolvedDependencies[0]"),
        ('"extract",', "7,", "predicate.buildDefinition.internalParameters.commands"),
    ],
)
def test_a_manifest_that_is_not_ours_is_named_by_its_key(folder: Path, old: str, new: str, where: str) -> None:
    text = (folder / MANIFEST_FILE).read_text()
    assert old in text
    (folder / MANIFEST_FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        read_vindex(folder)
    assert caught.value.where == where


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    manifest = read_vindex(folder)
    assert manifest.to_json() == (folder / MANIFEST_FILE).read_text()
    several = replace(manifest, licence=Licence(("mit", "apache-2.0")), slice="client")
    (folder / MANIFEST_FILE).write_text(several.to_json())
    assert read_vindex(folder) == several


def test_hostile_names_stay_text_in_the_card(folder: Path) -> None:
    hostile = "a\n---\nlicense: mit\n{{ 7 * 7 }}<script>](http://evil)"
    manifest = read_vindex(folder)
    shown = render_vindex(
        replace(
            manifest,
            quant=hostile,
            slice=hostile,
            source_repo=f"x/{hostile}",
            commands=((hostile,),),
            program=replace(manifest.program, version=hostile),
            files=tuple(replace(file, name=f"{hostile}{file.name}") for file in manifest.files),
            licence=Licence("other", hostile, hostile),
        )
    )
    card = ModelCard(shown)
    assert (card.data.license, card.data.license_name, card.data.base_model) == ("other", hostile, f"x/{hostile}")
    blocks = re.findall(r"```sh\n(.*?)\n```", card.text, re.DOTALL)
    assert [block.count("\n") for block in blocks] == [0, 0]
    prose = re.sub(r"```sh\n.*?\n```", "", card.text, flags=re.DOTALL)
    assert "&#60;script&#62;" in prose
    for markup in ("<script>", "](http://evil)", "\n---\n", "\nlicense: mit", " 49"):
        assert markup not in prose


def test_what_is_for_sidecars_says_where_vindexes_go(folder: Path) -> None:
    """Both are folders with a manifest and a card; nobody remembers which command is for which."""
    result = CliRunner().invoke(make_app(), ["card", str(folder)], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (1, "")
    for words in ("urn:skulk-mtp:vindex:v1", "swp vindex verify"):
        assert words in result.stderr


def test_a_damaged_folder_is_not_published(folder: Path) -> None:
    (folder / "gate.bin").write_bytes(b"other")
    (folder / "more.bin").write_bytes(b"other")
    with pytest.raises(DigestMismatch, match=r"gate.bin: has 5 bytes.*\(2 differences in all\)"):
        vindex_publication(folder, REPO)


def test_a_vindex_without_a_licence_is_not_published_unless_told(folder: Path) -> None:
    manifest = replace(read_vindex(folder), licence=Licence())
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    with pytest.raises(LicenceUnknown):
        vindex_publication(folder, REPO)
    entry = vindex_publication(folder, REPO, licence_unknown=True).entry
    assert entry is not None
    assert entry.licence == "unknown"


def test_published_once_then_nothing_to_do_then_verified(desk: Bench) -> None:
    """The whole way: a dry run, one commit, the catalog entry, the second run, the check of what is there."""
    planned = desk.run("vindex", "publish", OUT, "--org", "org", "--dry-run", "--json").answer
    assert [step["step"] for step in planned["steps"]] == ["CreateRepo", "Commit", "Record"]
    assert {item["name"] for item in planned["steps"][1]["add"]} == {
        *("LICENSE", "NOTICE.txt", "gate.bin", "index.json", "layers/0.bin", "provenance.json", "README.md")
    }
    assert (desk.hub.writes(), REPO in desk.hub.repos) == ([], False)
    published = desk.run("vindex", "publish", OUT, "--org", "org", "--json")
    assert published.code == 0, published.stderr
    assert (published.answer["repo"], published.answer["nothing_to_do"]) == (REPO, False)
    repo = desk.hub.repo(REPO)
    assert len(repo.commits) == 2
    assert repo.commits[1].files["layers/0.bin"] == (desk.home / OUT / "layers" / "0.bin").read_bytes()
    assert f"swp vindex verify {REPO}" in repo.files["README.md"].decode()
    (entry,) = read_catalog(desk.home / "config" / "skulk" / "catalog.yaml")
    assert entry == VindexEntry(
        base=MODEL,
        repo=REPO,
        licence="other",
        source_sha=desk.sha,
        quant="q4k",
        program="larql 0.3.1 (stand-in)",
    )
    again = desk.run("vindex", "publish", OUT, "--org")  # the login's only one
    assert (again.code, again.stdout) == (0, f"nothing to do: {REPO} holds this already\n")
    assert len(repo.commits) == 2

    verified = desk.run("vindex", "verify", REPO, "--json").answer
    assert (verified["ok"], len(verified["checks"])) == (True, 5)
    repo.commit({**repo.files, "layers/0.bin": b"other", "extra.bin": b"x"}, "a change")
    changed = desk.run("vindex", "verify", REPO)
    assert changed.code == 1
    assert "DIFFERS  layers/0.bin" in changed.stdout
    assert "DIFFERS  extra.bin: is not in the manifest" in changed.stdout
    first = desk.run("vindex", "verify", f"{REPO}@{repo.commits[1].sha}", "--json")
    assert (first.code, first.answer["ok"]) == (0, True)
    for finished in (published, again, changed):
        assert TOKEN not in finished.stdout + finished.stderr
    assert json.loads((desk.home / OUT / MANIFEST_FILE).read_text())["predicateType"].startswith("https://slsa.dev/")
