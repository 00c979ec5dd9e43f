"""Byte ranges of a checkpoint, and its tensors' places, from a folder; the Hub's side is in `tests/swp`."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_checkpoints import Tensor, write_file

from skulk_core.errors import FileError, SourceChanged
from skulk_core.hub.licences import licence_files, read_licence
from skulk_core.hub.ranges import FolderFiles, cut, read_range, read_small
from skulk_core.hub.stored_tensors import StoredTensors, parse_header


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize(("begin", "end"), [(0, 20), (0, 1), (5, 13), (19, 20), (7, 7)])
def test_a_range_is_cut_out_of_a_stream_of_any_pieces(begin: int, end: int, size: int) -> None:
    content = bytes(range(20))
    assert b"".join(cut(pieces(content, size), begin, end)) == content[begin:end]


def test_ranges_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(100)))
    (tmp_path / "sub").mkdir()
    files = FolderFiles(tmp_path)
    assert files.names == ("f",)
    assert files.stat("f").nbytes == 100
    assert read_range(files, "f", 10, 20) == bytes(range(10, 20))
    assert read_small(files, "f") == bytes(range(100))
    with pytest.raises(FileError, match="ends at byte 100"):
        read_range(files, "f", 90, 200)
    with pytest.raises(FileError, match="no such file"):
        files.stat("g")


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """Half of one version and half of another is a head that nobody trained."""
    (tmp_path / "f").write_bytes(bytes(100))
    files = FolderFiles(tmp_path)
    files.stat("f")
    (tmp_path / "f").write_bytes(bytes(101))
    with pytest.raises(SourceChanged, match="f changed"):
        read_range(files, "f", 0, 10)


def test_tensors_are_found_where_the_format_says(tmp_path: Path) -> None:
    tensors = {"a": Tensor("F32", (2, 2), bytes(range(16))), "b": Tensor("BF16", (3,), bytes(range(50, 56)))}
    write_file(tmp_path / "model.safetensors", tensors)
    files = FolderFiles(tmp_path)
    stored = StoredTensors.of(files)
    assert set(stored.file_of) == {"a", "b"}
    for name, tensor in tensors.items():
        found = stored.get(name)
        assert (found.dtype, found.shape, found.nbytes) == (tensor.dtype, tensor.shape, len(tensor.data))
        assert read_range(files, found.file, found.begin, found.end) == tensor.data


def test_with_an_index_only_headers_that_are_needed_are_read(tmp_path: Path) -> None:
    """A model of 160 files would otherwise cost as many requests."""
    for name in "ab":
        write_file(tmp_path / f"{name}.safetensors", {name: Tensor("F32", (), bytes(4))})
    index = {"weight_map": {name: f"{name}.safetensors" for name in "ab"} | {"c": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "a.safetensors").write_bytes(b"")
    stored = StoredTensors.of(FolderFiles(tmp_path))
    assert stored.get("b").file == "b.safetensors"
    with pytest.raises(FileError, match="c is in b.safetensors, which has no such tensor"):
        stored.get("c")
    with pytest.raises(FileError, match="a.safetensors"):
        stored.get("a")


def test_a_folder_without_weights_or_with_half_of_them(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="has neither"):
        StoredTensors.of(FolderFiles(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.raises(FileError, match=r"gone\.safetensors"):
        StoredTensors.of(FolderFiles(tmp_path))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "no JSON object"),
        (b'{"t": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}', "t has no usable dtype"),
        (b'{"t": {"dtype": "F32", "shape": [1]}}', "t has no usable dtype"),
        (b'{"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', "t is F32"),
        (b'{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "t is F32"),
        (b'{"t": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}', "truncated: t ends"),
    ],
)
def test_headers_that_cannot_be_true_are_refused(header: bytes, words: str) -> None:
    """Their offsets decide which bytes are fetched."""
    with pytest.raises(FileError, match=words):
        parse_header("f.safetensors", header, 100, 200)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
        (b"123", "truncated: 3 bytes"),
        (struct.pack("<Q", 1 << 40) + b"{}", "truncated, or not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_says_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(FileError, match=words):
        StoredTensors.of(FolderFiles(tmp_path))


@pytest.mark.parametrize(
    ("front_matter", "expected"),
    [
        ("license: apache-2.0", ("apache-2.0", None, None)),
        ("license: [mit, other]", (("mit", "other"), None, None)),
        ("license: other\nlicense_name: nvidia\nlicense_link: LICENSE", ("other", "nvidia", "LICENSE")),
        ("license: no", ("no", None, None)),
        ("license:\nlicense_name: x", (None, "x", None)),
        ("license: {a: b}", (None, None, None)),
        ("license: 'a\n\n  b: c'", ("a\nb: c", None, None)),
        ("licence: mit", (None, None, None)),
        (": : :", (None, None, None)),
    ],
)
def test_licence_fields_are_read_unchanged(front_matter: str, expected: tuple[object, ...]) -> None:
    found = read_licence(f"---\n{front_matter}\n---\n# text\n".encode())
    assert (found.id, found.name, found.link) == expected


def test_a_card_with_windows_line_ends_and_a_mark_has_a_licence_too() -> None:
    assert read_licence(b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n").id == "mit"
    assert read_licence(b"# no front matter\n---\nlicense: mit\n---\n").id is None


def test_licence_files_are_those_at_the_top_by_their_usual_names() -> None:
    names = ("LICENSE", "LICENSE.txt", "licence.md", "NOTICE", "LICENSE-MODEL", "license_of_nothing.py", "src/LICENSE")
    others = ("README.md", "config.json", "licenses.json", "notices")
    assert licence_files((*names, *others)) == tuple(sorted(names[:6]))
