"""Fetched parts on disk: what an interrupted extract has is not fetched again, and what is damaged is.

A finished part is a file named `FILE/VERSION/BEGIN-END-SHA256`, made by renaming, so that it is there whole or not at
all, for this process and for any other that works on the same commit. Its digest is in its name. Every process holds a
shared lock on the folder while it works; whoever ends last may take the lock for itself, and empties the folder.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from huggingface_hub import cached_assets_path, constants

from skulk_core.errors import FileError
from skulk_core.hub.ranges import StoredFile
from swp.fetch_plan import ByteRange

_LOCK_FILE = "lock"
_UNFINISHED = ".part-"
_READ_NBYTES = 1 << 20
_NAME = re.compile(r"(\d+)-(\d+)-([0-9a-f]{64})")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


# bounds of a part -> files that may be it, with their digests
_LeftOver = dict[tuple[int, int], list[tuple[Path, str]]]


class PartCache:
    """Parts of one repository's files at one commit. Use as a context manager. Raises `FileError`."""

    def __init__(self, repo: str, sha: str) -> None:
        try:
            # under HF_HOME, where the client keeps what other libraries fetch through it
            self.folder = cached_assets_path("skulk-mtp", namespace=f"swp--{repo.replace('/', '--')}", subfolder=sha)
        except (OSError, ValueError) as error:
            raise FileError(constants.HF_ASSETS_CACHE, f"cannot be used: {error}") from error
        self._lock = -1
        self._known: dict[ByteRange, Path] = {}
        self._found: dict[Path, _LeftOver] = {}

    def __enter__(self) -> "PartCache":
        try:
            self._lock = os.open(self.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # nobody else is at work: what is unfinished was left by a process that was killed
                for path in self.folder.glob(f"*/*/{_UNFINISHED}*"):
                    path.unlink(missing_ok=True)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        except OSError as error:
            raise FileError(self.folder, f"cannot be used: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def find(self, stored: StoredFile, part: ByteRange) -> Path | None:
        """The finished part, or None. One whose bytes are not those of its digest is removed."""
        known = self._known.get(part)
        if known is not None:
            return known
        for path, sha256 in self._left_over(stored).pop((part.begin, part.end), ()):
            if _is_whole(path, part.nbytes, sha256):
                self._known[part] = path
                return path
            path.unlink(missing_ok=True)
        return None

    def add(self, stored: StoredFile, part: ByteRange, chunks: Iterator[bytes]) -> None:
        """Write a part as its bytes come. Raises `FileError` if the disk fails, and what `chunks` raises."""
        place = self._place(stored)
        digest, nbytes = hashlib.sha256(), 0
        try:
            place.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=place, prefix=_UNFINISHED)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    for chunk in chunks:
                        stream.write(chunk)
                        digest.update(chunk)
                        nbytes += len(chunk)
                    stream.flush()
                    os.fsync(stream.fileno())
                assert nbytes == part.nbytes, (part, nbytes)
                path = place / f"{part.begin}-{part.end}-{digest.hexdigest()}"
                os.replace(temporary, path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise FileError(error.filename or place, f"cannot be written: {error.strerror or error}") from error
        self._known[part] = path

    def read(self, part: ByteRange, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)` of the file, from a part that has been found or added. Raises `FileError`."""
        path = self._known[part]
        try:
            with path.open("rb") as stream:
                stream.seek(begin - part.begin)
                while begin < end:
                    chunk = stream.read(min(_READ_NBYTES, end - begin))
                    if not chunk:
                        raise FileError(path, "is shorter than it was")
                    begin += len(chunk)
                    yield chunk
        except OSError as error:
            raise FileError(path, f"cannot be read: {error.strerror or error}") from error

    def discard(self) -> None:
        """Remove every part, unless another process is using them: then it will."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        self._known.clear()
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _left_over(self, stored: StoredFile) -> _LeftOver:
        """Parts of earlier runs that nobody has looked at yet."""
        place = self._place(stored)
        if place not in self._found:
            self._found[place] = {}
            for path in sorted(place.glob("*")):
                if match := _NAME.fullmatch(path.name):
                    bounds = int(match[1]), int(match[2])
                    self._found[place].setdefault(bounds, []).append((path, match[3]))
        return self._found[place]

    def _place(self, stored: StoredFile) -> Path:
        return self.folder / _UNSAFE.sub("_", stored.name) / _UNSAFE.sub("_", stored.version)


def _is_whole(path: Path, nbytes: int, sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != nbytes:
            return False
        with path.open("rb") as stream:
            while chunk := stream.read(_READ_NBYTES):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == sha256
