"""What a GGUF file declares: its metadata, and name, shape, kind and place of every tensor. No tensor is read.

Layout as in ggml's `docs/gguf.md`, versions 2 and 3, little endian. MLX reads these files itself, and is only given one
that was found whole here: it turns kinds that it does not know into nothing, and some K-quants into wrong numbers.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from skulk_core.errors import FileError, UnsupportedQuantization

MAGIC = b"GGUF"
READABLE_KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_0")

_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4
_STRING, _ARRAY = 8, 9
# struct's letter for every value of a fixed size, by the format's number
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# ggml's names of tensor kinds in the order of their numbers, those of retired ones too
_KIND_NAMES = """
    F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
    IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M
    BF16 Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 IQ4_NL_4_4 IQ4_NL_4_8 IQ4_NL_8_8 MXFP4
    NVFP4 Q1_0
"""
_KINDS = dict(enumerate(_KIND_NAMES.split()))
# weights in a block, and its bytes
_BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q8_0": (32, 34)}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as the file declares it: rows first, ``kind`` by ggml's name, bytes ``[start, end)`` of the file."""

    name: str
    shape: tuple[int, ...]
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file's declarations. Strings, numbers and lists of them by key; tensors by name."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """The declarations of ``path``, every tensor of which is whole and of a kind in `READABLE_KINDS`.

    Raises `FileError` for what is no GGUF, truncated or damaged, `UnsupportedQuantization` for any other kind.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise FileError(path, "not a GGUF file" if path.stat().st_size else "empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _parse(path, content)
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from error


def _parse(path: Path, content: mmap.mmap) -> GgufFile:
    reader = _Reader(path, content)
    reader.at = len(MAGIC)
    version = reader.value("I")
    if version not in _VERSIONS:
        raise FileError(path, f"GGUF version {version}; versions 2 and 3, little endian, can be read")
    num_tensors, num_keys = reader.value("Q"), reader.value("Q")
    metadata = {}
    for _ in range(num_keys):
        key = reader.string()
        metadata[key] = reader.typed(reader.value("I"))
    declared = [_declaration(reader) for _ in range(num_tensors)]
    if metadata.get("split.count", 1) != 1:
        parts = metadata["split.count"]
        raise FileError(path, f"one of {parts} parts; llama.cpp's `llama-gguf-split --merge` makes one file of them")
    _require_readable(path, [(name, kind) for name, _, kind, _ in declared])
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise FileError(path, f"general.alignment is {alignment}")
    data = -(-reader.at // alignment) * alignment
    tensors = {}
    for name, shape, number, offset in declared:
        if name in tensors:
            raise FileError(path, f"declares tensor {name} twice")
        tensors[name] = _placed(path, name, shape, _KINDS[number], data + offset, len(content))
    return GgufFile(path, metadata, tensors)


def _declaration(reader: "_Reader") -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, number of the kind, and offset among the tensors' bytes."""
    name, num_dims = reader.string(), reader.value("I")
    if not 1 <= num_dims <= _MAX_DIMS:
        raise FileError(reader.path, f"damaged: tensor {name} has {num_dims} dimensions")
    # ggml counts dimensions from the innermost
    shape = tuple(reversed([int(reader.value("Q")) for _ in range(num_dims)]))
    return name, shape, reader.value("I"), reader.value("Q")


def _require_readable(path: Path, declared: list[tuple[str, int]]) -> None:
    unreadable: dict[str, str] = {}
    for name, number in declared:
        kind = _KINDS.get(number, f"kind {number}")
        if kind not in READABLE_KINDS:
            unreadable.setdefault(kind, name)
    if unreadable:
        raise UnsupportedQuantization(path, unreadable, READABLE_KINDS)


def _placed(path: Path, name: str, shape: tuple[int, ...], kind: str, start: int, size: int) -> GgufTensor:
    per_block, block_nbytes = _BLOCKS[kind]
    if shape[-1] % per_block or (per_block > 1 and not name.endswith(".weight")):
        raise FileError(path, f"damaged: tensor {name} {list(shape)} cannot be {kind}")
    end = start + prod(shape) // per_block * block_nbytes
    if end > size:
        raise FileError(path, f"truncated: tensor {name} ends at byte {end:,}, the file at {size:,}")
    return GgufTensor(name, shape, kind, start, end)


class _Reader:
    """Reads values one after the other. Raises `FileError` at the end of the file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.at = path, 0
        self._content, self._size = content, len(content)

    def value(self, letter: str) -> Any:
        """One number, by struct's letter."""
        return self._numbers(letter, 1)[0]

    def string(self) -> str:
        """A string with its length before it; bytes that are no UTF-8 are spelled out."""
        return self._take(self.value("Q")).decode("utf-8", "backslashreplace")

    def typed(self, number: int) -> Any:
        """A value of the type ``number``."""
        if number == _STRING:
            return self.string()
        if number != _ARRAY:
            return self.value(self._letter(number))
        number, length = self.value("I"), self.value("Q")
        if number == _STRING:
            self._require(8 * length)
            return [self.string() for _ in range(length)]
        return list(self._numbers(self._letter(number), length))

    def _letter(self, number: int) -> str:
        if number not in _FIXED:
            raise FileError(self.path, f"damaged: a metadata value of type {number} at byte {self.at:,}")
        return _FIXED[number]

    def _numbers(self, letter: str, count: int) -> tuple[Any, ...]:
        nbytes = struct.calcsize(f"<{letter}") * count
        self._require(nbytes)
        numbers = struct.unpack_from(f"<{count}{letter}", self._content, self.at)
        self.at += nbytes
        return numbers

    def _take(self, nbytes: int) -> bytes:
        self._require(nbytes)
        taken = self._content[self.at : self.at + nbytes]
        self.at += nbytes
        return taken

    def _require(self, nbytes: int) -> None:
        if self.at + nbytes > self._size:
            raise FileError(self.path, f"truncated or damaged: its declarations go on past its {self._size:,} bytes")
