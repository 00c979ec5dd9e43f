"""Publishing: one commit with everything, once, and never over something else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_writing import Fault, WritableRepo
from publishing import REPO, Desk, desk
from sidecar_folder import SHA, SOURCE, TENSORS, sha256, write_folder

from skulk_core.errors import (
    DigestMismatch,
    FormatError,
    LicenceUnknown,
    NameTaken,
    NotVerified,
    OptionError,
    PublishConflict,
)
from skulk_core.formats.catalog import SidecarEntry, read_catalog
from skulk_core.formats.provenance import FileRecord, Licence, Origin
from swp.plan import Collect, Commit, CreateRepo, Record, repo_name, target_repo
from swp.publish import apply, sidecar_publication

FILES = {"mtp.safetensors", "LICENSE", "provenance.json", "README.md"}
OTHER = {**TENSORS, "mtp.norm.weight": b"otherone"}


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with desk(tmp_path, monkeypatch) as made:
        yield made


def test_one_commit_holds_everything(at: Desk) -> None:
    done = at.publish(collection="Heads")
    repo = at.hub.repo(REPO)
    initial, commit = repo.commits
    assert set(commit.files) == FILES | set(initial.files)
    for name in FILES - {"README.md"}:
        assert commit.files[name] == (at.folder / name).read_bytes()
    assert f"--sidecar {REPO}".encode() in commit.files["README.md"]
    assert commit.parent == initial.sha
    assert SHA in commit.message
    assert done.commit == commit.sha
    assert not repo.private


def test_the_commit_names_its_parent(at: Desk) -> None:
    """Without it, what somebody else commits at that moment would be lost."""
    at.publish()
    sent = [body for body in at.hub.bodies if b'"key": "header"' in body]
    assert len(sent) == 1
    assert at.hub.repo(REPO).commits[0].sha.encode() in sent[0]


def test_collection_and_catalog_come_after_the_commit(at: Desk) -> None:
    at.publish(collection="Heads")
    (collection,) = at.hub.collections.values()
    assert (collection["title"], [item["id"] for item in collection["items"]]) == ("Heads", [REPO])
    (entry,) = read_catalog(at.catalog)
    assert isinstance(entry, SidecarEntry)
    assert (entry.base, entry.repo, entry.source_sha, entry.layout) == (SOURCE, REPO, SHA, "qwen_mtp")
    paths = [path for _, path in at.hub.writes()]
    assert paths.index(f"/api/models/{REPO}/commit/main") < paths.index("/api/collections")


def test_the_second_run_does_nothing(at: Desk) -> None:
    at.publish(collection="Heads")
    before = at.hub.writes()
    catalog = at.catalog.read_bytes()
    assert at.plan(collection="Heads").steps == ()
    assert at.publish(collection="Heads").done == ()
    assert at.hub.writes() == before
    assert at.catalog.read_bytes() == catalog


def test_a_dry_run_is_the_plan_that_is_carried_out(at: Desk) -> None:
    plan = at.plan(collection="Heads", private=True)
    assert at.hub.writes() == []
    assert [type(step) for step in plan.steps] == [CreateRepo, Commit, Collect, Record]
    told = plan.to_dict()
    assert [step["step"] for step in told["steps"]] == ["CreateRepo", "Commit", "Collect", "Record"]
    assert {file["name"] for file in told["steps"][1]["add"]} == FILES
    done = apply(plan, at.writer, at.catalog, at.notes.append)
    assert list(done.done) == [step["summary"] for step in told["steps"]]
    assert at.hub.repo(REPO).private


def test_only_what_is_missing_is_done(at: Desk) -> None:
    at.publish()
    assert [type(step) for step in at.plan(collection="Heads").steps] == [Collect]


def test_other_weights_of_the_same_source_are_refused(at: Desk) -> None:
    """Somebody may rely on what is there."""
    at.publish()
    before = at.hub.repo(REPO).sha
    write_folder(at.folder, tensors=OTHER)
    with pytest.raises(PublishConflict, match=r"another mtp\.safetensors"):
        at.publish()
    assert at.hub.repo(REPO).sha == before


def test_another_commit_of_the_source_is_refused(at: Desk) -> None:
    at.publish()
    write_folder(at.folder, source_sha="f" * 40)
    with pytest.raises(PublishConflict, match=f"another commit of .*{SHA}"):
        at.publish()


def test_force_replaces_and_takes_away_what_is_no_longer_there(at: Desk) -> None:
    write_folder(at.folder, licences={"LICENSE": b"old", "NOTICE": b"n"})
    at.publish()
    write_folder(at.folder, tensors=OTHER, licences={"LICENSE": b"new"})
    (commit, *_) = at.plan(force=True).steps
    assert isinstance(commit, Commit)
    assert commit.delete == ("NOTICE",)
    at.publish(force=True)
    repo = at.hub.repo(REPO)
    assert len(repo.commits) == 3
    assert repo.files["mtp.safetensors"] == (at.folder / "mtp.safetensors").read_bytes()
    assert repo.files["LICENSE"] == b"new"
    assert "NOTICE" not in repo.files
    assert at.plan(force=True).steps == ()


def test_a_byte_changed_on_the_hub_is_not_taken_for_the_same(at: Desk) -> None:
    at.publish()
    repo = at.hub.repo(REPO)
    changed = bytearray(repo.files["mtp.safetensors"])
    changed[-1] ^= 1
    repo.commit({**repo.files, "mtp.safetensors": bytes(changed)}, "tampered")
    with pytest.raises(PublishConflict, match=r"another mtp\.safetensors"):
        at.plan()


def test_a_changed_card_is_left_and_mentioned(at: Desk) -> None:
    """People write into cards; the weights are what counts."""
    at.publish()
    repo = at.hub.repo(REPO)
    repo.commit({**repo.files, "README.md": b"---\nlicense: mit\n---\nmine"}, "my own words")
    plan = at.plan()
    assert plan.steps == ()
    assert "README.md" in plan.notes[0]
    assert [type(step) for step in at.plan(force=True).steps] == [Commit]


def test_another_version_of_the_program_publishes_nothing_new(at: Desk) -> None:
    at.publish()
    manifest = write_folder(at.folder)
    (at.folder / "provenance.json").write_text(replace(manifest, tool="swp 9.9.9").to_json(), encoding="utf-8")
    assert at.plan().steps == ()


@pytest.mark.parametrize("force", [False, True])
def test_a_name_that_another_source_has_is_refused(at: Desk, force: bool) -> None:
    """Two models whose names differ in dots and dashes would otherwise overwrite each other."""
    at.publish()
    before = at.hub.repo(REPO).sha
    write_folder(at.folder, source_repo="Upstream/Tiny-Model-1B")
    with pytest.raises(NameTaken, match=SOURCE):
        at.publish(force=force)
    assert at.hub.repo(REPO).sha == before


def test_a_repository_of_somebody_else_is_refused(at: Desk) -> None:
    at.hub.repos[REPO] = WritableRepo({"mtp.safetensors": b"head", "README.md": b""})
    with pytest.raises(PublishConflict, match=r"no provenance\.json"):
        at.publish()
    at.hub.repos[REPO].card["base_model"] = "Other/Model"
    with pytest.raises(NameTaken, match="Other/Model"):
        at.publish()
    at.hub.repos[REPO].card["base_model"] = [SOURCE]
    with pytest.raises(PublishConflict, match=r"no provenance\.json"):
        at.publish()
    at.publish(force=True)
    assert set(at.hub.repo(REPO).files) >= FILES


def test_an_unreadable_manifest_there_is_something_else(at: Desk) -> None:
    at.hub.repos[REPO] = WritableRepo({"provenance.json": b"[]"})
    with pytest.raises(PublishConflict, match="cannot be read"):
        at.publish()


def test_an_empty_repository_is_used(at: Desk) -> None:
    """A run that died after creating it is taken up."""
    at.hub.repos[REPO] = WritableRepo()
    at.publish()
    assert set(at.hub.repo(REPO).files) >= FILES
    assert ("POST", "/api/repos/create") not in at.hub.writes()


def test_private_is_not_published_in_public(at: Desk) -> None:
    at.hub.repos[REPO] = WritableRepo()
    with pytest.raises(PublishConflict, match="public"):
        at.publish(private=True)


def test_a_folder_of_an_asserted_source_is_refused(at: Desk) -> None:
    write_folder(at.folder, origin=Origin.ASSERTED)
    with pytest.raises(NotVerified, match="said to be"):
        at.publish()
    assert at.hub.requests == []


def test_a_missing_licence_is_refused(at: Desk) -> None:
    write_folder(at.folder, licence=Licence())
    with pytest.raises(LicenceUnknown):
        at.publish()
    assert at.hub.requests == []
    sidecar_publication(at.folder, REPO, licence_unknown=True)


@pytest.mark.parametrize(("position", "tensor"), [(-1, "mtp.norm.weight"), (-9, "mtp.fc.weight")])
def test_a_changed_byte_is_found_before_anything_is_created(at: Desk, position: int, tensor: str) -> None:
    content = bytearray((at.folder / "mtp.safetensors").read_bytes())
    content[position] ^= 1
    (at.folder / "mtp.safetensors").write_bytes(content)
    with pytest.raises(DigestMismatch, match=tensor) as caught:
        at.publish()
    assert caught.value.tensor == tensor
    assert at.hub.requests == []


def test_a_changed_header_byte_is_found(at: Desk) -> None:
    """No tensor differs then, but a loader would wire the head in another way."""
    content = (at.folder / "mtp.safetensors").read_bytes()
    changed = content.replace(b'"mtp_sidecar.norm_offset": "0.0"', b'"mtp_sidecar.norm_offset": "1.0"')
    assert changed != content
    (at.folder / "mtp.safetensors").write_bytes(changed)
    with pytest.raises(DigestMismatch, match=r"mtp\.safetensors"):
        at.publish()


@pytest.mark.parametrize("name", ["mtp.safetensors", "LICENSE"])
def test_a_missing_or_cut_file_is_found(at: Desk, name: str) -> None:
    content = (at.folder / name).read_bytes()
    (at.folder / name).write_bytes(content[:-1])
    with pytest.raises(DigestMismatch, match=name):
        at.publish()
    (at.folder / name).unlink()
    with pytest.raises(DigestMismatch, match=name):
        at.publish()
    assert at.hub.requests == []


def test_a_file_that_changes_during_the_upload_is_not_committed(at: Desk) -> None:
    """What is published would not be what its manifest says."""
    write_folder(at.folder, padding=2 << 20)
    sidecar = at.folder / "mtp.safetensors"

    def change() -> None:
        content = bytearray(sidecar.read_bytes())
        content[-1] ^= 1
        sidecar.write_bytes(content)

    at.hub.faults.append(Fault("POST", f"/api/models/{REPO}/preupload/main", before=change))
    with pytest.raises(DigestMismatch, match="changed"):
        at.publish()
    assert len(at.hub.repo(REPO).commits) == 1


@pytest.mark.parametrize("name", ["README.md", "provenance.json", ".gitattributes", "a/.git/config"])
def test_a_manifest_cannot_name_what_is_not_its_to_name(at: Desk, name: str) -> None:
    """Such a file would replace the card or manifest, or be refused by the Hub after the upload."""
    (at.folder / name).parent.mkdir(parents=True, exist_ok=True)
    manifest = write_folder(at.folder)
    (at.folder / name).write_bytes(b"x")
    extra = FileRecord(name, 1, sha256(b"x"))
    (at.folder / "provenance.json").write_text(replace(manifest, files=(*manifest.files, extra)).to_json())
    with pytest.raises((FormatError, DigestMismatch)):
        at.publish()
    assert at.hub.requests == []


def test_the_folders_own_card_is_not_published(at: Desk) -> None:
    (at.folder / "README.md").write_text("---\nlicense: mit\n---\n")
    plan = at.plan()
    assert "README.md" in plan.notes[0]
    at.publish()
    assert b"apache-2.0" in at.hub.repo(REPO).files["README.md"]


def test_what_a_person_wrote_into_the_catalog_stays(at: Desk) -> None:
    at.publish()
    text = at.catalog.read_text()
    at.catalog.write_text(text + "    default_depth: 3  # measured here\n")
    assert at.plan().steps == ()
    write_folder(at.folder, source_sha="f" * 40)
    at.publish(force=True)
    (entry,) = read_catalog(at.catalog)
    assert isinstance(entry, SidecarEntry)
    assert (entry.source_sha, entry.default_depth) == ("f" * 40, 3)
    assert "# measured here" in at.catalog.read_text()


def test_a_catalog_entry_for_another_sidecar_stays(at: Desk) -> None:
    at.publish()
    at.catalog.write_text(at.catalog.read_text().replace(REPO, "mine/better-mtp"))
    plan = at.plan()
    assert plan.steps == ()
    assert "mine/better-mtp" in plan.notes[0]


@pytest.mark.parametrize(
    ("source", "name"),
    [("Qwen/Qwen3.5-0.8B-Base", "qwen3-5-0-8b-base-mtp"), ("nvidia/NVIDIA-Nemotron-3", "nvidia-nemotron-3-mtp")],
)
def test_names_of_repositories(source: str, name: str) -> None:
    assert repo_name(source) == name


@pytest.mark.parametrize(
    ("owner", "name"), [("org", "a/b"), ("org", ""), ("../org", "a"), ("org", "a--b"), ("org", "a" * 96)]
)
def test_names_that_the_hub_refuses(owner: str, name: str) -> None:
    with pytest.raises(OptionError):
        target_repo(owner, name)
