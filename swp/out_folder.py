"""The folder that an extract writes: locked while it is written, everything in it renamed into place when complete."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skulk_core.errors import FileError, FormatError, NotEnoughSpace, OptionError
from skulk_core.formats.provenance import MANIFEST_FILE, FileRecord, Manifest, read_manifest
from skulk_core.formats.sidecar import SIDECAR_FILE, NoMetadata, from_strings
from skulk_core.formats.statement import record_file
from skulk_core.hub.headers import read_metadata
from skulk_core.hub.progress import OnProgress

CARD_FILE = "README.md"

_SPARE_NBYTES = 64 << 20
_TEMPORARY = ".swp-"
_WAITING = "waiting for another swp, which writes the same folder"


def default_folder(repo: str) -> Path:
    """`./NAME-mtp`: the repository's name in lower case, dots to dashes."""
    return Path(f"{repo.rpartition('/')[2].lower().replace('.', '-')}-mtp")


@contextmanager
def locked(folder: Path, on_progress: OnProgress | None) -> Iterator[None]:
    """Make the folder and keep other processes out of it; wait for one that is in it. Raises `FileError`.

    Unfinished files of a process that was killed are removed, and so is a folder that was made here and stays empty.
    """
    descriptor, made = _lock(folder, on_progress)
    try:
        for path in folder.glob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)
        yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # does nothing to a folder with files in it
        os.close(descriptor)


def _lock(folder: Path, on_progress: OnProgress | None) -> tuple[int, bool]:
    """A descriptor that holds the lock of the folder, which exists, and whether it was made here."""
    while True:
        try:
            made = _make(folder)
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # another process has just removed it
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if on_progress is not None:
                        on_progress(_WAITING, 0, None)
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_at(folder, descriptor):
                    return descriptor, made
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        except OSError as error:
            raise FileError(folder, f"cannot be written: {error.strerror or error}") from error


def _make(folder: Path) -> bool:
    """Make the folder; False if it was there."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir() and os.path.lexists(folder):
            raise
        return False
    return True


def _is_at(folder: Path, descriptor: int) -> bool:
    """Whether what is open is still what has the name: whoever held the lock may have removed the folder."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def temporary_beside(path: Path) -> Path:
    """The name of `path` while it is not complete; `locked` removes what is left of it."""
    return path.with_name(f"{_TEMPORARY}{path.name}")


def write_file(path: Path, content: str | bytes) -> FileRecord:
    """Write a file whole or not at all, readable for everybody. Raises `FileError`."""
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror or error}") from error
    return record_file(path.parent, path.name)


def finished_manifest(folder: Path) -> Manifest | None:
    """The manifest in the folder, if every file that it names is there with the digest it states."""
    if not (folder / MANIFEST_FILE).exists():
        return None
    manifest = read_manifest(folder)
    for file in manifest.files:
        if not (folder / file.name).is_file() or record_file(folder, file.name) != file:
            return None
    return manifest


def refuse_other_content(folder: Path, source: str) -> None:
    """Raise `OptionError` unless the folder is empty or holds what was taken from `source`, an `OWNER/NAME@SHA`."""
    if (folder / MANIFEST_FILE).exists():
        try:
            held = read_manifest(folder).source
        except FormatError as error:
            raise OptionError("--out", folder, f"its {MANIFEST_FILE} is not ours ({error.where})") from error
    elif (folder / SIDECAR_FILE).exists():
        said = from_strings(folder / SIDECAR_FILE, read_metadata(folder / SIDECAR_FILE))
        held = "an unknown source" if isinstance(said, NoMetadata) else f"{said.source_repo}@{said.source_sha}"
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise OptionError("--out", folder, "is not empty, and nothing in it is ours; choose another folder")
    else:
        return
    if held != source:
        raise OptionError("--out", folder, f"holds the sidecar of {held}; choose another folder, or remove that one")


def check_space(needed: list[tuple[Path, int]]) -> None:
    """Raise `NotEnoughSpace` unless every file system has room for what is to be written in its folders."""
    by_device: dict[int, tuple[Path, int]] = {}
    for folder, nbytes in needed:
        device = folder.stat().st_dev
        first, so_far = by_device.get(device, (folder, _SPARE_NBYTES))
        by_device[device] = (first, so_far + nbytes)
    for folder, nbytes in by_device.values():
        free_nbytes = shutil.disk_usage(folder).free
        if free_nbytes < nbytes:
            raise NotEnoughSpace(folder, nbytes, free_nbytes)
