"""Verifying: one changed byte is found and named, whoever changed what; and what was only asserted becomes verified."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cli_checkpoints import Tensor, read_file, write_file
from hub_loopback import Repo
from hub_writing import Fault
from publishing import Desk, desk
from swp_extracting import shipped_catalog
from upstream_checkpoints import CARD, Built, deepseek, deepseek_fp8, qwen, write

from skulk_core.errors import FormatError, HubError, ModelNameError, NotVerified, RevisionNotFound
from skulk_core.formats.provenance import FileRecord, Origin, read_manifest
from swp.check import Subject
from swp.extract import Wish, extract
from swp.hub_write import HubWriter
from swp.plan import Wishes
from swp.publish import apply, prepare, sidecar_publication
from swp.sources import open_source
from swp.verify import Verification, verify

UPSTREAM = "Upstream/Model-1.5B"
REPO = "org/model-1-5b-mtp"


@dataclass
class Bench:
    """An upstream checkpoint on the Hub, a copy of it here, and a place to extract to."""

    desk: Desk
    copy: Path
    out: Path

    @property
    def upstream(self) -> Repo:
        return self.desk.hub.repos[UPSTREAM]

    def serve(self, built: Built, card: str = CARD) -> None:
        write(self.copy, built, 3, card)
        self.desk.hub.repos[UPSTREAM] = Repo({file.name: file.read_bytes() for file in self.copy.iterdir()})

    def extract(self, *, local: bool = False, **wish: Any) -> None:
        sha = self.upstream.sha
        text, said = (str(self.copy), f"{UPSTREAM}@{sha}") if local else (f"{UPSTREAM}@{sha}", None)
        cancel = Event()
        source = open_source(text, said, cancel)
        extract(source, self.out, Wish(**wish), shipped_catalog(), "swp test", cancel)

    def publish(self) -> None:
        writer: HubWriter = self.desk.writer
        plan = prepare(writer, sidecar_publication(self.out, REPO), REPO, Wishes(), self.desk.catalog)
        apply(plan, writer, self.desk.catalog, self.desk.notes.append)

    def verify(self, target: str | Path = REPO) -> Verification:
        return verify(str(target), shipped_catalog(), Event())

    def change_published(self, name: str, content: bytes) -> None:
        repo = self.desk.hub.repo(REPO)
        repo.commit({**repo.files, name: content}, "changed")

    def rewrite(self, tensors: dict[str, Tensor], **changes: Any) -> None:
        """Write the folder's sidecar anew, and a manifest that fits it: what somebody does who wants to deceive."""
        manifest = read_manifest(self.out)
        _, metadata = read_file(self.out / "mtp.safetensors")
        write_file(self.out / "mtp.safetensors", tensors, metadata)
        content = (self.out / "mtp.safetensors").read_bytes()
        digests = {name: hashlib.sha256(tensor.data).hexdigest() for name, tensor in tensors.items()}
        records = tuple(replace(r, sha256=digests[r.name]) for r in manifest.tensors if r.name in tensors)
        sidecar = FileRecord("mtp.safetensors", len(content), hashlib.sha256(content).hexdigest())
        files = (sidecar, *(file for file in manifest.files if file.name != "mtp.safetensors"))
        manifest = replace(manifest, **{"tensors": records, "files": files, **changes})
        (self.out / "provenance.json").write_text(manifest.to_json(), encoding="utf-8")


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with desk(tmp_path, monkeypatch) as made:
        yield Bench(made, tmp_path / "copy", tmp_path / "out")


def wrong(found: Verification) -> list[tuple[str, str]]:
    """What differs."""
    return [(check.subject.value, check.name) for check in found.checks if not check.ok]


@pytest.mark.parametrize("make", [qwen, deepseek, deepseek_fp8])
def test_what_was_extracted_and_published_verifies_clean(at: Bench, make: Any) -> None:
    at.serve(make())
    at.extract()
    assert wrong(at.verify(at.out)) == []
    at.publish()
    found = at.verify()
    assert wrong(found) == []
    assert found.source == f"{UPSTREAM}@{at.upstream.sha}"
    named = {check.name for check in found.checks if check.subject is Subject.TENSOR}
    assert named == set(read_file(at.out / "mtp.safetensors")[0])
    assert not found.now_verified


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_changed_byte_is_found_and_its_tensor_named(at: Bench, place: str) -> None:
    at.serve(qwen())
    at.extract()
    at.publish()
    content = bytearray((at.out / "mtp.safetensors").read_bytes())
    begin, end = 8 + int.from_bytes(content[:8], "little"), len(content)
    content[{"first": begin, "middle": (begin + end) // 2, "last": end - 1}[place]] ^= 0x10
    at.change_published("mtp.safetensors", bytes(content))
    before, _ = read_file(at.out / "mtp.safetensors")
    file = at.out.parent / "changed.safetensors"
    file.write_bytes(content)
    after, _ = read_file(file)
    (changed,) = (name for name in before if before[name] != after[name])
    assert wrong(at.verify()) == [("file", "mtp.safetensors"), ("tensor", changed)]
    assert wrong(at.verify(f"{REPO}@{at.desk.hub.repo(REPO).commits[1].sha}")) == []


def test_a_changed_byte_of_metadata_or_licence_is_found(at: Bench) -> None:
    at.serve(qwen())
    at.extract()
    at.publish()
    published = dict(at.desk.hub.repo(REPO).files)
    changed = published["mtp.safetensors"].replace(b'norm_offset":"1.0', b'norm_offset":"0.0')
    assert changed != published["mtp.safetensors"]
    at.change_published("mtp.safetensors", changed)
    at.change_published("LICENSE", published["LICENSE"].replace(b"2.0", b"9.0"))
    assert wrong(at.verify()) == [
        ("file", "mtp.safetensors"),
        ("file", "LICENSE"),
        ("metadata", "mtp.safetensors"),
    ]


def test_a_tensor_that_was_changed_with_its_manifest_is_named(at: Bench) -> None:
    """Digests alone only show that file and manifest came from the same hands."""
    at.serve(qwen())
    at.extract()
    tensors, _ = read_file(at.out / "mtp.safetensors")
    name = "mtp.fc.weight"
    tensors[name] = replace(tensors[name], data=tensors[name].data[:-1] + b"\x42")
    at.rewrite(tensors)
    at.publish()
    assert wrong(at.verify()) == [("tensor", name)]


def test_a_tensor_that_was_left_out_is_named(at: Bench) -> None:
    at.serve(qwen())
    at.extract()
    tensors, _ = read_file(at.out / "mtp.safetensors")
    del tensors["mtp.norm.weight"]
    at.rewrite(tensors)
    assert wrong(at.verify(at.out)) == [("tensor", "mtp.norm.weight")]


def test_a_tensor_that_is_wrongly_called_the_trunks_is_named(at: Bench) -> None:
    """A model would be decoded with an embedding that its head was not trained on."""
    at.serve(deepseek())
    at.extract()
    manifest = read_manifest(at.out)
    first, *rest = manifest.shared
    at.rewrite(read_file(at.out / "mtp.safetensors")[0], shared=(replace(first, trunk_name="model.norm.weight"), *rest))
    assert wrong(at.verify(at.out)) == [("shared", first.name)]


def test_a_manifest_that_points_elsewhere_in_the_source_is_found(at: Bench) -> None:
    at.serve(qwen())
    at.extract()
    manifest = read_manifest(at.out)
    first, *rest = manifest.tensors
    moved = replace(first, source=(replace(first.source[0], begin=0, end=first.source[0].nbytes),))
    at.rewrite(read_file(at.out / "mtp.safetensors")[0])
    (at.out / "provenance.json").write_text(replace(manifest, tensors=(moved, *rest)).to_json(), encoding="utf-8")
    found = wrong(at.verify(at.out))
    assert ("tensor", first.name) in found


def test_a_manifest_that_lies_about_the_licence_is_found(at: Bench) -> None:
    at.serve(qwen())
    at.extract()
    manifest = read_manifest(at.out)
    at.rewrite(read_file(at.out / "mtp.safetensors")[0], licence=replace(manifest.licence, id="mit"))
    assert wrong(at.verify(at.out)) == [("metadata", "provenance.json")]


def test_an_asserted_source_is_published_only_once_it_was_verified(at: Bench) -> None:
    at.serve(qwen())
    at.extract(local=True)
    assert read_manifest(at.out).origin is Origin.ASSERTED
    with pytest.raises(NotVerified):
        at.publish()
    found = at.verify(at.out)
    assert found.ok
    assert found.now_verified
    manifest = read_manifest(at.out)
    assert manifest.origin is Origin.VERIFIED
    assert "compared with the source commit" in (at.out / "README.md").read_text()
    at.publish()
    assert wrong(at.verify()) == []
    assert not at.verify(at.out).now_verified


def test_what_was_published_from_the_hub_is_the_same_from_a_verified_copy(at: Bench) -> None:
    """Whoever has the checkpoint on disk makes the same files; there is nothing to publish, and no conflict."""
    at.serve(qwen())
    at.extract()
    at.publish()
    before = at.desk.hub.writes()
    at.extract(local=True)
    assert at.verify(at.out).now_verified
    at.publish()
    assert at.desk.hub.writes() == before


def test_an_asserted_source_that_is_another_one_stays_unpublishable(at: Bench) -> None:
    """The folder was a fine-tune; the card would have said that it is the original."""
    at.serve(qwen())
    file = at.copy / "model-00001-of-00003.safetensors"
    tensors, metadata = read_file(file)
    name = next(name for name in tensors if name.startswith("mtp."))
    tensors[name] = replace(tensors[name], data=bytes(len(tensors[name].data)))
    write_file(file, tensors, metadata)
    at.extract(local=True)
    manifest = (at.out / "provenance.json").read_bytes()
    found = at.verify(at.out)
    assert wrong(found) == [("tensor", name)]
    assert not found.now_verified
    assert (at.out / "provenance.json").read_bytes() == manifest
    with pytest.raises(NotVerified):
        at.publish()


def test_what_changes_after_it_was_verified_is_not_published(at: Bench) -> None:
    at.serve(qwen())
    at.extract(local=True)
    assert at.verify(at.out).now_verified
    at.extract(local=True)
    with pytest.raises(NotVerified):
        at.publish()


def test_a_card_that_somebody_wrote_into_is_left_to_them(at: Bench) -> None:
    at.serve(qwen())
    at.extract(local=True)
    (at.out / "README.md").write_text("my words")
    assert at.verify(at.out).now_verified
    assert (at.out / "README.md").read_text() == "my words"


def test_a_verification_that_cannot_be_made_changes_nothing(at: Bench) -> None:
    at.serve(qwen())
    at.extract(local=True)
    manifest = (at.out / "provenance.json").read_bytes()
    at.desk.hub.faults.append(Fault("GET", f"/{UPSTREAM}/resolve/.*", status=403, times=99))
    with pytest.raises(HubError):
        at.verify(at.out)
    assert (at.out / "provenance.json").read_bytes() == manifest


def test_a_source_commit_that_does_not_exist_is_said(at: Bench) -> None:
    at.serve(qwen())
    at.extract()
    at.upstream.files["another"] = b"file"  # and with it another commit
    with pytest.raises(RevisionNotFound):
        at.verify(at.out)


def test_what_has_no_manifest_cannot_be_verified(at: Bench) -> None:
    at.desk.hub.repos["owner/foreign"] = Repo({"mtp.safetensors": b""})
    with pytest.raises(HubError, match=r"holds no provenance\.json"):
        at.verify("owner/foreign")
    at.desk.hub.repos["owner/broken"] = Repo({"provenance.json": b"{}"})
    with pytest.raises(FormatError):
        at.verify("owner/broken")
    with pytest.raises(ModelNameError):
        at.verify("demo")


def test_a_manifest_cannot_name_files_outside_its_folder(at: Bench) -> None:
    at.serve(qwen())
    at.extract()
    text = (at.out / "provenance.json").read_text().replace('"name": "LICENSE"', '"name": "../../secret"', 1)
    (at.out / "provenance.json").write_text(text)
    with pytest.raises(FormatError, match="secret"):
        at.verify(at.out)
