"""Where in a checkpoint's files its tensors are, from the index and the safetensors headers alone."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from skulk_core.errors import FileError
from skulk_core.hub.headers import DTYPE_BITS, INDEX_FILE, MODEL_FILE, parse_index
from skulk_core.hub.ranges import CheckpointFiles, read_range, read_small

_LENGTH_NBYTES = 8
_MAX_HEADER_NBYTES = 100_000_000  # the format's own limit
_LFS_POINTER = b"version "


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: bytes `[begin, end)` of `file`, counted from the file's beginning. `dtype` is the format's name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass
class StoredTensors:
    """The tensors of a checkpoint. Headers are read when they are first needed, each once.

    `file_of` maps every tensor name to its file; `header_nbytes` counts what was read for headers.
    """

    files: CheckpointFiles
    file_of: Mapping[str, str]
    header_nbytes: int = 0
    _headers: dict[str, dict[str, StoredTensor]] = field(default_factory=dict)

    @staticmethod
    def of(files: CheckpointFiles) -> "StoredTensors":
        """Of the index, else of `model.safetensors`, else of `model*.safetensors`. Raises `FileError`."""
        names = set(files.names)
        if INDEX_FILE in names:
            content = read_small(files, INDEX_FILE)
            weight_map = parse_index(Path(INDEX_FILE), content)
            for name, file in weight_map.items():
                if file not in names:
                    raise FileError(INDEX_FILE, f"says that {name} is in {file}, which {files} does not have")
            return StoredTensors(files, weight_map, len(content))
        single = [MODEL_FILE] if MODEL_FILE in names else []
        weights = single or sorted(n for n in names if n.startswith("model") and n.endswith(".safetensors"))
        if not weights:
            raise FileError(str(files), f"has neither {MODEL_FILE} nor {INDEX_FILE}")
        tensors = StoredTensors(files, {})
        tensors.file_of = {name: file for file in weights for name in tensors._header(file)}
        return tensors

    def __contains__(self, name: object) -> bool:
        return name in self.file_of

    def get(self, name: str) -> StoredTensor:
        """The tensor `name`, which must be in `file_of`. Raises `FileError` if its file does not have it."""
        file = self.file_of[name]
        found = self._header(file).get(name)
        if found is None:
            raise FileError(INDEX_FILE, f"says that {name} is in {file}, which has no such tensor")
        return found

    def get_all(self, names: Iterable[str]) -> tuple[StoredTensor, ...]:
        """The tensors in the order of `names`."""
        return tuple(self.get(name) for name in names)

    def _header(self, file: str) -> dict[str, StoredTensor]:
        if file not in self._headers:
            self._headers[file] = {tensor.name: tensor for tensor in self._read_header(file)}
        return self._headers[file]

    def _read_header(self, file: str) -> tuple[StoredTensor, ...]:
        file_nbytes = self.files.stat(file).nbytes
        if file_nbytes < _LENGTH_NBYTES:
            raise FileError(file, f"truncated: {file_nbytes} bytes")
        start = read_range(self.files, file, 0, _LENGTH_NBYTES)
        if start == _LFS_POINTER:
            raise FileError(file, "a git-lfs pointer, not the file it points to (git lfs pull fetches it)")
        data_start = _LENGTH_NBYTES + int.from_bytes(start, "little")
        if data_start > file_nbytes or data_start > _MAX_HEADER_NBYTES:
            raise FileError(file, f"truncated, or not a safetensors file: its header would end at byte {data_start}")
        header = read_range(self.files, file, _LENGTH_NBYTES, data_start)
        self.header_nbytes += data_start
        return parse_header(file, header, data_start, file_nbytes)


def parse_header(file: str, header: bytes, data_start: int, file_nbytes: int) -> tuple[StoredTensor, ...]:
    """The tensors that a safetensors header names. `data_start` is where the data begins in the file.

    Raises `FileError` if it is not JSON, a dtype is unknown, or a tensor's place and size do not agree.
    """
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise FileError(file, "not a safetensors file: its header is not JSON") from error
    if not isinstance(entries, dict):
        raise FileError(file, "not a safetensors file: its header is no JSON object")
    entries.pop("__metadata__", None)
    return tuple(_tensor(file, name, entry, data_start, file_nbytes) for name, entry in entries.items())


def _tensor(file: str, name: str, entry: Any, data_start: int, file_nbytes: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        bits = DTYPE_BITS[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(file, f"damaged header: {name} has no usable dtype, shape and data_offsets") from error
    if not whole or (end - begin) * 8 != prod(shape) * bits:
        raise FileError(file, f"damaged header: {name} is {dtype} {list(shape)}, but has bytes {begin} to {end}")
    if data_start + end > file_nbytes:
        raise FileError(file, f"truncated: {name} ends at byte {data_start + end}, the file has {file_nbytes}")
    return StoredTensor(name, dtype, shape, file, data_start + begin, data_start + end)
