"""Whether a vindex is what its manifest says: every file by digest, none missing, none more."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from skulk_core.errors import FileError, RepoNotFound, VindexError
from skulk_core.formats.statement import MANIFEST_FILE, FileRecord, record_file
from skulk_core.formats.vindex import INDEX_FILE, VindexManifest, read_vindex
from skulk_core.hub.licences import CARD_FILE
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.ranges import HubFiles, read_small
from skulk_core.hub.refs import RepoRef
from swp.check import Check, Subject

# What is beside the files of a manifest: itself, the card, and what the Hub adds to every repository.
_BESIDE = (MANIFEST_FILE, CARD_FILE, ".gitattributes")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


@dataclass(frozen=True)
class Verification:
    """Every comparison of one vindex. `name` is the folder or the repository with its commit."""

    name: str
    manifest: VindexManifest
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The comparisons as JSON has them."""
        checks = [{"file": check.name, "ok": check.ok, "detail": check.detail} for check in self.checks]
        return {"name": self.name, "source": self.manifest.source, "ok": self.ok, "checks": checks}


def verify_vindex(
    where: Path | RepoRef,
    cancel: Event,
    on_progress: OnProgress | None = None,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Read every file of the folder, or of the repository at one commit, and compare it with the manifest there.

    Nothing is kept of what is downloaded. Raises our Hub errors, `FileError`, and `FormatError` for the manifest.
    """
    if isinstance(where, Path):
        manifest = read_vindex(where)
        return Verification(str(where), manifest, check_vindex(where, manifest, on_progress))
    files = HubFiles.at(where, cancel, on_wait)
    if MANIFEST_FILE not in files.names:
        raise RepoNotFound(where.repo, f"holds no {MANIFEST_FILE}: it is no vindex of ours")
    with TemporaryDirectory(prefix="swp-") as folder:
        path = Path(folder) / MANIFEST_FILE
        path.write_bytes(read_small(files, MANIFEST_FILE))
        manifest = read_vindex(path)

    def record(name: str) -> FileRecord:
        digest, nbytes = hashlib.sha256(), 0
        for chunk in files.read_whole(name):
            digest.update(chunk)
            nbytes += len(chunk)
        return FileRecord(name, nbytes, digest.hexdigest())

    return Verification(str(files), manifest, _compare(manifest, files.names, record, on_progress))


def check_vindex(folder: Path, manifest: VindexManifest, on_progress: OnProgress | None = None) -> tuple[Check, ...]:
    """Compare a folder with its manifest. Raises `FileError` for a folder that cannot be listed, for nothing else."""
    names = [name for name, _ in _walk(folder)]
    return _compare(manifest, names, lambda name: record_file(folder, name), on_progress)


def record_folder(folder: Path, on_progress: OnProgress | None = None) -> tuple[FileRecord, ...]:
    """Size and digest of every file under `folder`. Raises `VindexError` for what is no plain file, `FileError`."""
    found = _walk(folder)
    if strange := [name for name, plain in found if not plain]:
        raise VindexError(folder, "links and special files cannot be published", strange)
    if unnamed := [name for name, _ in found if not name.isprintable() or "\\" in name]:
        raise VindexError(folder, "names that cannot be published", [repr(name) for name in unnamed])
    total, done, records = sum((folder / name).stat().st_size for name, _ in found), 0, []
    for name, _ in found:
        records.append(record_file(folder, name))
        done += records[-1].nbytes
        if on_progress is not None:
            on_progress("taking digests", done, total)
    return tuple(records)


def check_index(folder: Path, records: Sequence[FileRecord]) -> None:
    """Compare the checksums that larql's own `index.json` states, of some files, with what is there.

    Raises `VindexError` naming the files that differ; an index without checksums states nothing.
    """
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VindexError(folder, f"its {INDEX_FILE} cannot be read", [str(error)]) from error
    stated = index.get("checksums") if isinstance(index, dict) else None
    if not isinstance(stated, dict):
        return
    found = {record.name: record.sha256 for record in records}
    wrong = [
        f"{name} has the sha256 {found[name]}, {INDEX_FILE} says {value}"
        for name, value in stated.items()
        if name in found and isinstance(value, str) and _SHA256.fullmatch(value) and found[name] != value.lower()
    ]
    if wrong:
        raise VindexError(folder, "was made wrong", wrong)


def _compare(
    manifest: VindexManifest,
    names: Iterable[str],
    record: Callable[[str], FileRecord],
    on_progress: OnProgress | None,
) -> tuple[Check, ...]:
    there = set(names)
    total, done = sum(file.nbytes for file in manifest.files), 0
    checks = []
    for file in manifest.files:
        if file.name not in there:
            checks.append(Check(Subject.FILE, file.name, False, "is missing"))
            continue
        try:
            checks.append(_check(file, record(file.name)))
        except FileError as error:
            checks.append(Check(Subject.FILE, file.name, False, error.reason))
        done += file.nbytes
        if on_progress is not None:
            on_progress("reading files", done, total)
    surplus = there - {file.name for file in manifest.files} - set(_BESIDE)
    checks += [Check(Subject.FILE, name, False, "is not in the manifest") for name in sorted(surplus)]
    return tuple(checks)


def _check(expected: FileRecord, found: FileRecord) -> Check:
    if found.nbytes != expected.nbytes:
        detail = f"has {found.nbytes} bytes, the manifest says {expected.nbytes}"
        return Check(Subject.FILE, expected.name, False, detail)
    if found.sha256 != expected.sha256:
        detail = f"has the sha256 {found.sha256}, the manifest says {expected.sha256}"
        return Check(Subject.FILE, expected.name, False, detail)
    return Check(Subject.FILE, expected.name, True, f"sha256 {found.sha256}")


def _walk(folder: Path) -> list[tuple[str, bool]]:
    """Everything under `folder` but folders, as a path with forward slashes, and whether it is a plain file; sorted."""
    found = []
    try:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_dir():
                found.append((path.relative_to(folder).as_posix(), path.is_file() and not path.is_symlink()))
    except OSError as error:
        raise FileError(folder, f"cannot be listed: {error.strerror or error}") from error
    return sorted(found)
