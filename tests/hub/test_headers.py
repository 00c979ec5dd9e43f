"""Headers of checkpoints on disk, whole and damaged."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from skulk_core.errors import FileError
from skulk_core.hub.headers import read_checkpoint_headers, read_headers, read_metadata

NOBODY = 65534


def write(file: Path, *names: str, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: np.zeros((2, 3), np.float32) for name in names}, file, metadata)
    return file


def write_raw(file: Path, header: dict[str, object], num_data_bytes: int) -> Path:
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(num_data_bytes))
    return file


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything; be somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_names_shapes_and_dtypes(tmp_path: Path) -> None:
    file = write_raw(
        tmp_path / "a.safetensors",
        {
            "w": {"dtype": "F8_E4M3", "shape": [4, 2], "data_offsets": [0, 8]},
            "packed": {"dtype": "F4", "shape": [2, 4], "data_offsets": [8, 12]},
            "scalar": {"dtype": "BF16", "shape": [], "data_offsets": [12, 14]},
        },
        14,
    )
    headers = read_headers(file)
    assert [(h.name, h.dtype, h.shape, h.nbytes) for h in headers] == [
        ("packed", "F4", (2, 4), 4),
        ("scalar", "BF16", (), 2),
        ("w", "F8_E4M3", (4, 2), 8),
    ]
    assert {h.file for h in headers} == {file}


def test_metadata_is_empty_where_there_is_none(tmp_path: Path) -> None:
    assert read_metadata(write(tmp_path / "a.safetensors", "w", metadata={"format": "pt"})) == {"format": "pt"}
    assert read_metadata(write(tmp_path / "b.safetensors", "w")) == {}


def test_every_way_a_file_can_be_cut_is_called_truncated(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.safetensors", "w", "v").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in range(1, len(whole)):
        cut.write_bytes(whole[:size])
        with pytest.raises(FileError, match="truncated") as caught:
            read_headers(cut)
        assert f"{size}" in caught.value.reason


def test_a_cut_file_says_how_much_is_missing(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", "w")
    size = file.stat().st_size
    os.truncate(file, size - 4)
    with pytest.raises(FileError) as caught:
        read_headers(file)
    assert caught.value.reason == f"truncated: header promises {size} bytes, file has {size - 4}"
    assert caught.value.path == file


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html><body>504 Gateway Time-out</body></html>", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer"),
        ((2).to_bytes(8, "little") + b"{]", "not a usable safetensors file"),
    ],
)
def test_what_is_not_safetensors(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    for read in (read_headers, read_metadata):
        with pytest.raises(FileError, match=reason):
            read(file)


def test_a_file_with_bytes_too_many_is_damaged(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", "w")
    with file.open("ab") as stream:
        stream.write(b"??")
    with pytest.raises(FileError, match="damaged: header promises"):
        read_headers(file)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_headers(tmp_path / "nope.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        read_headers(tmp_path)


def test_a_file_one_may_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.safetensors", "w")
    file.chmod(0)
    with unprivileged(), pytest.raises(FileError, match="permission denied"):
        read_headers(file)


def test_a_single_file_checkpoint_whatever_lies_beside_it(tmp_path: Path) -> None:
    model = write(tmp_path / "model.safetensors", "w")
    (tmp_path / "mtp.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    (tmp_path / "model-old.safetensors").write_bytes(b"half of a download")
    headers = read_checkpoint_headers(tmp_path)
    assert [(h.name, h.file) for h in headers.model] == [("w", model)]


def test_a_sharded_checkpoint_is_read_by_its_index(tmp_path: Path) -> None:
    one = write(tmp_path / "model-00001-of-00002.safetensors", "a")
    two = write(tmp_path / "model-00002-of-00002.safetensors", "b")
    write(tmp_path / "model-old.safetensors", "a")
    write_index(tmp_path, {"a": one.name, "b": two.name})
    headers = read_checkpoint_headers(tmp_path)
    assert [(h.name, h.file) for h in headers.model] == [("a", one), ("b", two)]


def test_shards_without_an_index(tmp_path: Path) -> None:
    write(tmp_path / "model-00001-of-00002.safetensors", "a")
    write(tmp_path / "model-00002-of-00002.safetensors", "b")
    assert [h.name for h in read_checkpoint_headers(tmp_path).model] == ["a", "b"]


def test_an_index_that_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    one = write(tmp_path / "model-00001-of-00002.safetensors", "a")
    index = write_index(tmp_path, {"a": one.name, "b": "model-00002-of-00002.safetensors"})
    with pytest.raises(FileError, match=r"names model-00002-of-00002\.safetensors") as caught:
        read_checkpoint_headers(tmp_path)
    assert caught.value.path == index


def test_an_index_that_names_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    one = write(tmp_path / "model-00001-of-00001.safetensors", "a")
    write_index(tmp_path, {"a": one.name, "b": one.name})
    with pytest.raises(FileError, match=rf"b is in {one.name}, which has no such tensor"):
        read_checkpoint_headers(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": {"a": "../secret.safetensors"}}', "is not a file name"),
        ('{"weight_map": {"a": 1}}', "is not a file name"),
    ],
)
def test_an_index_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(FileError, match=reason):
        read_checkpoint_headers(tmp_path)


def test_a_folder_without_weights_and_no_folder(tmp_path: Path) -> None:
    write(tmp_path / "mtp.safetensors", "head")
    with pytest.raises(FileError, match=r"has neither model\.safetensors nor"):
        read_checkpoint_headers(tmp_path)
    with pytest.raises(FileError, match="no such folder"):
        read_checkpoint_headers(tmp_path / "nope")


def write_index(folder: Path, weight_map: dict[str, str]) -> Path:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index
