"""Writing a safetensors file whose tensors come one after the other, in pieces, and never all at once."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

from skulk_core.errors import FileError
from skulk_core.formats.statement import FileRecord, record_file
from skulk_core.hub.headers import DTYPE_BITS
from swp.out_folder import temporary_beside

_ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """A tensor that is going to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BITS[self.dtype] // 8


def in_file_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The order in a file: widest dtype first, so that every tensor is aligned, then by name."""
    return tuple(sorted(entries, key=lambda entry: (-DTYPE_BITS[entry.dtype], entry.name)))


class SidecarWriter:
    """Writes `path` through a temporary file beside it, which is renamed once it was read back and found right.

    Use as a context manager: leaving it by an error, or without `finish`, leaves `path` as it was.
    """

    def __init__(self, path: Path, entries: Sequence[Entry], metadata: Mapping[str, str]) -> None:
        self._path, self._entries = path, entries
        self._header = _header(entries, metadata)
        self._next, self._digest = 0, hashlib.sha256()
        self._temporary = temporary_beside(path)

    @property
    def nbytes(self) -> int:
        """Size of the finished file."""
        return len(self._header) + sum(entry.nbytes for entry in self._entries)

    def __enter__(self) -> "SidecarWriter":
        try:
            self._stream = self._temporary.open("wb")
        except OSError as error:
            raise FileError(self._path, f"cannot be written: {error.strerror or error}") from error
        self._append(self._header)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, name: str, chunks: Iterable[bytes]) -> str:
        """Write the next tensor; its sha256. Raises `FileError`, and what `chunks` raises."""
        entry = self._entries[self._next]
        assert entry.name == name, (entry.name, name)
        self._next += 1
        digest, nbytes = hashlib.sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            nbytes += len(chunk)
            self._append(chunk)
        assert nbytes == entry.nbytes, (name, nbytes, entry.nbytes)
        return digest.hexdigest()

    def finish(self) -> FileRecord:
        """Make the file durable, read it back, and give it its name. Raises `FileError`."""
        assert self._next == len(self._entries), "a tensor was not written"
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            found = record_file(self._path.parent, self._temporary.name)
            if found.sha256 != self._digest.hexdigest():
                raise FileError(self._path, "what was written is not what is read back: is the disk failing?")
            os.replace(self._temporary, self._path)
        except OSError as error:
            raise FileError(self._path, f"cannot be written: {error.strerror or error}") from error
        return FileRecord(self._path.name, found.nbytes, found.sha256)

    def _append(self, content: bytes) -> None:
        self._digest.update(content)
        try:
            self._stream.write(content)
        except OSError as error:
            raise FileError(self._path, f"cannot be written: {error.strerror or error}") from error


def _header(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.nbytes],
        }
        at += entry.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
