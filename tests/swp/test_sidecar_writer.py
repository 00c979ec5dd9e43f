"""The streaming writer, read back by the safetensors library itself."""

from hashlib import sha256
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from skulk_core.errors import FileError
from skulk_core.formats.statement import record_file
from swp.sidecar import Entry, SidecarWriter, in_file_order

ENTRIES = (Entry("b", "F16", (2, 3)), Entry("a", "F32", (3,)), Entry("c", "I64", (1,)), Entry("scalar", "F32", ()))
DATA = {entry.name: bytes(range(entry.nbytes)) for entry in ENTRIES}


def write(path: Path) -> None:
    entries = in_file_order(ENTRIES)
    with SidecarWriter(path, entries, {"format": "pt", "key": 'quote " and é'}) as writer:
        for entry in entries:
            data = DATA[entry.name]
            writer.write(entry.name, [data[:3], b"", data[3:]])
        writer.finish()


def test_the_library_reads_every_tensor_and_the_metadata(tmp_path: Path) -> None:
    write(tmp_path / "f.safetensors")
    found = load_file(tmp_path / "f.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == DATA
    assert {name: array.shape for name, array in found.items()} == {e.name: e.shape for e in ENTRIES}
    with safe_open(tmp_path / "f.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt", "key": 'quote " and é'}


def test_it_is_the_file_that_the_library_would_write(tmp_path: Path) -> None:
    """Readers that map the file need every tensor aligned, which is what the library's own order gives."""
    write(tmp_path / "ours.safetensors")
    arrays = load_file(tmp_path / "ours.safetensors")
    save_file(arrays, tmp_path / "theirs.safetensors", {"format": "pt", "key": 'quote " and é'})
    ours, theirs = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("ours", "theirs"))
    payload = sum(entry.nbytes for entry in ENTRIES)
    assert ours[-payload:] == theirs[-payload:]
    assert (len(ours) - payload) % 8 == 0


def test_its_digests_are_those_of_the_tensors_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    with SidecarWriter(path, ENTRIES, {}) as writer:
        digests = [writer.write(entry.name, [DATA[entry.name]]) for entry in ENTRIES]
        size = writer.nbytes
        record = writer.finish()
    assert digests == [sha256(DATA[entry.name]).hexdigest() for entry in ENTRIES]
    assert record == record_file(tmp_path, "f.safetensors")
    assert record.nbytes == size == path.stat().st_size


def test_an_error_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    write(path)
    before = path.read_bytes()

    def breaks() -> None:
        with SidecarWriter(path, ENTRIES, {}) as writer:
            writer.write("b", [DATA["b"]])
            raise FileError(path, "the disk is full")

    with pytest.raises(FileError):
        breaks()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["f.safetensors"]


def test_a_file_that_reads_back_otherwise_is_not_given_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that loses writes would end in a sidecar that nobody can load."""
    real = record_file

    def damaged(folder: Path, name: str) -> object:
        with (folder / name).open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"\xff")
        return real(folder, name)

    monkeypatch.setattr("swp.sidecar.record_file", damaged)
    with pytest.raises(FileError, match="read back"):
        write(tmp_path / "f.safetensors")
    assert not list(tmp_path.iterdir())
