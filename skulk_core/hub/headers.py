"""Names, shapes and dtypes of the tensors in safetensors files, without reading one tensor."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from skulk_core.errors import FileError

MODEL_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_LENGTH_NBYTES = 8  # a safetensors file begins with the length of its header, a little-endian uint64
_LFS_POINTER = b"version https://git-lfs"

# Bits of one element, by the names the safetensors format gives its dtypes.
DTYPE_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}


@dataclass(frozen=True)
class TensorHeader:
    """One tensor as its file declares it. `dtype` is the format's own name, for example `BF16`, `F8_E4M3`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data in the file."""
        return prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class CheckpointHeaders:
    """Tensors of the checkpoint in a folder, in the order of file and name.

    They are those of the files that the index names, of `model.safetensors`, or of `model*.safetensors`. Nothing is
    known of other safetensors files in the folder: an older copy, a sidecar, half of a download.
    """

    folder: Path
    model: tuple[TensorHeader, ...]


def read_headers(file: Path) -> tuple[TensorHeader, ...]:
    """Headers of every tensor in `file`, sorted by name.

    Raises `FileError` if the file is missing, unreadable, empty, truncated or not safetensors.
    """
    _check_readable(file)
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in sorted(tensors.keys())}
            return tuple(TensorHeader(n, s.get_dtype(), tuple(s.get_shape()), file) for n, s in slices.items())
    except SafetensorError as error:
        raise FileError(file, _diagnose(file) or f"not a usable safetensors file: {error}") from error


def read_metadata(file: Path) -> dict[str, str]:
    """The `__metadata__` of `file`, empty if it has none. Raises as `read_headers` does."""
    _check_readable(file)
    try:
        with safe_open(file, framework="numpy") as tensors:
            return dict(tensors.metadata() or {})
    except SafetensorError as error:
        raise FileError(file, _diagnose(file) or f"not a usable safetensors file: {error}") from error


def read_checkpoint_headers(folder: Path, absent: Collection[str] = ()) -> CheckpointHeaders:
    """Headers of the model's own safetensors files in `folder`; others are not looked at.

    Files named in `absent`, of the index, need not be there.
    Raises `FileError` for a folder without model weights, an index that cannot be read or that names a file or tensor
    which is not there, and as `read_headers` does.
    """
    if not folder.is_dir():
        raise FileError(folder, "no such folder")
    index = folder / INDEX_FILE
    if index.is_file():
        weight_map = {name: file for name, file in _read_index(index).items() if file not in absent}
        model_files = sorted({folder / file for file in weight_map.values()})
        for file in model_files:
            if not file.is_file():
                raise FileError(index, f"names {file.name}, which is not in {folder}")
    else:
        weight_map = {}
        single = folder / MODEL_FILE
        model_files = [single] if single.is_file() else sorted(folder.glob("model*.safetensors"))
    if not model_files:
        others = ", ".join(sorted(file.name for file in folder.glob("*.safetensors")))
        only = f", only {others}" if others else ""
        raise FileError(folder, f"has neither {MODEL_FILE} nor {INDEX_FILE}{only}")
    model = tuple(header for file in model_files for header in read_headers(file))
    located = {(header.name, header.file) for header in model}
    for name, file_name in weight_map.items():
        if (name, folder / file_name) not in located:
            raise FileError(index, f"says that {name} is in {file_name}, which has no such tensor")
    return CheckpointHeaders(folder, model)


def index_files(index: Path) -> tuple[str, ...]:
    """Names of the files that an index spreads its tensors over, sorted. Raises `FileError`."""
    return tuple(sorted(set(_read_index(index).values())))


def _read_index(index: Path) -> Mapping[str, str]:
    try:
        return parse_index(index, index.read_bytes())
    except OSError as error:
        raise FileError(index, _os_reason(error)) from error


def parse_index(index: Path, text: bytes) -> Mapping[str, str]:
    """Tensor name → file name of the index file `index`, whose content is `text`.

    Every file name is a plain name in the index's own folder. Raises `FileError`.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise FileError(index, f"not valid JSON: {error}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileError(index, "has no weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise FileError(index, f"weight_map of {name}: {file!r} is not a file name")
    return weight_map


def _check_readable(file: Path) -> None:
    """Raise a `FileError` in the operating system's words; the library's own say less."""
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise FileError(file, _os_reason(error)) from error


def _os_reason(error: OSError) -> str:
    reasons: dict[type[OSError], str] = {
        FileNotFoundError: "no such file",
        PermissionError: "permission denied",
        IsADirectoryError: "is a folder, not a file",
    }
    return reasons.get(type(error)) or error.strerror or str(error)


def _diagnose(file: Path) -> str:
    """Why the library refused `file`, as far as its size and first bytes can tell; empty if they cannot."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(len(_LFS_POINTER))
        if not start:
            return "empty"
        if start == _LFS_POINTER:
            return "a git-lfs pointer, not the file it points to (git lfs pull fetches it)"
        if size < _LENGTH_NBYTES:
            return f"truncated: {size} bytes, fewer than the {_LENGTH_NBYTES} every safetensors file begins with"
        if start[_LENGTH_NBYTES : _LENGTH_NBYTES + 1] not in (b"{", b""):
            return "not a safetensors file"
        data_start = _LENGTH_NBYTES + int.from_bytes(start[:_LENGTH_NBYTES], "little")
        if data_start > size:
            return f"truncated: header promises {data_start} bytes, file has {size}"
        stream.seek(_LENGTH_NBYTES)
        header = stream.read(data_start - _LENGTH_NBYTES)
    promised = _promised_nbytes(header, data_start)
    if promised is None or promised == size:
        return ""
    if promised > size:
        return f"truncated: header promises {promised} bytes, file has {size}"
    return f"damaged: header promises {promised} bytes, file has {size}"


def _promised_nbytes(header: bytes, data_start: int) -> int | None:
    """Size of the whole file by its header, or None if the header itself is no usable JSON."""
    try:
        tensors = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        return data_start + int(max(ends, default=0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
