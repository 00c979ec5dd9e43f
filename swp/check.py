"""Whether a folder is what its manifest says: every file, every tensor and the metadata, by digest. Reads only disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from skulk_core.errors import DigestMismatch, FileError
from skulk_core.formats.provenance import Manifest, TensorRecord
from skulk_core.formats.sidecar import SIDECAR_FILE, NoMetadata, from_strings
from skulk_core.formats.statement import FileRecord, record_file
from skulk_core.hub.headers import read_metadata
from skulk_core.hub.ranges import FolderFiles, read_range
from skulk_core.hub.stored_tensors import StoredTensor, parse_header

_LENGTH_NBYTES = 8


class Subject(StrEnum):
    """What a check is about."""

    FILE = "file"
    TENSOR = "tensor"
    METADATA = "metadata"
    SHARED = "shared"


@dataclass(frozen=True)
class Check:
    """One comparison. `detail` says what was compared, or how it differs."""

    subject: Subject
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Checks:
    """All comparisons of one folder."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)

    def require(self, folder: Path) -> None:
        """Raise `DigestMismatch` for the first difference, a tensor's before that of the file it is in."""
        failed = sorted(self.failed, key=lambda check: check.subject is not Subject.TENSOR)
        if failed:
            first = failed[0]
            tensor = first.name if first.subject is Subject.TENSOR else None
            path = folder / (SIDECAR_FILE if tensor or first.subject is Subject.METADATA else first.name)
            more = f" ({len(failed)} differences in all)" if len(failed) > 1 else ""
            raise DigestMismatch(path, first.detail + more, tensor)


def check_folder(folder: Path, manifest: Manifest) -> Checks:
    """Compare the files, the sidecar's tensors and its metadata with the manifest. Never raises for a difference."""
    return Checks((*check_files(folder, manifest.files), *_check_sidecar(folder, manifest)))


def check_files(folder: Path, records: Sequence[FileRecord]) -> tuple[Check, ...]:
    """Compare files with what a manifest says of their sizes and digests."""
    return tuple(_check_file(folder, record) for record in records)


def local_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of the folder's sidecar, by name. Raises `FileError`."""
    files = FolderFiles(folder)
    nbytes = files.stat(SIDECAR_FILE).nbytes
    data_start = _LENGTH_NBYTES + int.from_bytes(read_range(files, SIDECAR_FILE, 0, _LENGTH_NBYTES), "little")
    if data_start > nbytes:
        raise FileError(folder / SIDECAR_FILE, f"truncated: its header would end at byte {data_start} of {nbytes}")
    header = read_range(files, SIDECAR_FILE, _LENGTH_NBYTES, data_start)
    tensors = parse_header(str(folder / SIDECAR_FILE), header, data_start, nbytes)
    return {tensor.name: tensor for tensor in tensors}


def _check_file(folder: Path, record: FileRecord) -> Check:
    try:
        found = record_file(folder, record.name)
    except FileError as error:
        return Check(Subject.FILE, record.name, False, error.reason)
    if found.nbytes != record.nbytes:
        return Check(Subject.FILE, record.name, False, f"has {found.nbytes} bytes, the manifest says {record.nbytes}")
    if found.sha256 != record.sha256:
        detail = f"has the sha256 {found.sha256}, the manifest says {record.sha256}"
        return Check(Subject.FILE, record.name, False, detail)
    return Check(Subject.FILE, record.name, True, "as the manifest says")


def _check_sidecar(folder: Path, manifest: Manifest) -> tuple[Check, ...]:
    if SIDECAR_FILE not in {file.name for file in manifest.files}:
        return (Check(Subject.FILE, SIDECAR_FILE, False, "is not in the manifest"),)
    try:
        found = local_tensors(folder)
        metadata = _check_metadata(folder, manifest)
    except FileError as error:
        return (Check(Subject.FILE, SIDECAR_FILE, False, error.reason),)
    recorded = {record.name for record in manifest.tensors}
    surplus = (Check(Subject.TENSOR, n, False, "is not in the manifest") for n in found if n not in recorded)
    return (metadata, *(_check_tensor(folder, r, found.get(r.name)) for r in manifest.tensors), *surplus)


def _check_tensor(folder: Path, record: TensorRecord, found: StoredTensor | None) -> Check:
    if found is None:
        return Check(Subject.TENSOR, record.name, False, "is not in the file")
    if (found.dtype, found.shape) != (record.dtype, record.shape):
        detail = f"is {found.dtype} {list(found.shape)}, the manifest says {record.dtype} {list(record.shape)}"
        return Check(Subject.TENSOR, record.name, False, detail)
    digest = hashlib.sha256()
    for chunk in FolderFiles(folder).read(SIDECAR_FILE, found.begin, found.end):
        digest.update(chunk)
    if digest.hexdigest() != record.sha256:
        detail = f"has the sha256 {digest.hexdigest()}, the manifest says {record.sha256}"
        return Check(Subject.TENSOR, record.name, False, detail)
    return Check(Subject.TENSOR, record.name, True, "as the manifest says")


def _check_metadata(folder: Path, manifest: Manifest) -> Check:
    """Whether a loader is told by the file what the manifest says. Raises `FileError`, `FormatError`."""
    path = folder / SIDECAR_FILE
    found = from_strings(path, read_metadata(path))
    if isinstance(found, NoMetadata):
        return Check(Subject.METADATA, SIDECAR_FILE, False, "has no metadata of this format")
    said = {
        "source_repo": (found.source_repo, manifest.source_repo),
        "source_sha": (found.source_sha, manifest.source_sha),
        "layout": (found.layout, manifest.layout),
        "num_heads": (found.num_heads, manifest.num_heads),
        "conventions": (found.conventions, manifest.conventions),
        "trunk": (found.trunk, manifest.trunk),
        "shared_tensors": (sorted(found.shared_tensors), sorted(tensor.name for tensor in manifest.shared)),
    }
    different = [name for name, (here, there) in said.items() if here != there]
    if different:
        detail = f"its metadata says another {', '.join(different)} than the manifest"
        return Check(Subject.METADATA, SIDECAR_FILE, False, detail)
    return Check(Subject.METADATA, SIDECAR_FILE, True, "as the manifest says")
