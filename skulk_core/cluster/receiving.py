"""The receiving side of `--push`: what of a part is here, whole and as sent; what arrived is put in place.

Files arrive under a name of their own, `NAME.part`, which can be continued. A part that has its full length is read
once; if its digest is the one announced it is renamed, else it is removed. What was verified is remembered.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skulk_core.errors import FileError
from skulk_core.runtime.userfiles import write_atomically

PART_SUFFIX = ".part"
RECEIVED_FILE = "skulk-received.json"
_CHUNK_NBYTES = 1 << 22


@dataclass(frozen=True)
class Announced:
    """One file of a part: its length and its SHA-256."""

    nbytes: int
    sha256: str


def announced_text(text: str) -> Announced:
    """Of a file that holds ``text`` in UTF-8."""
    content = text.encode()
    return Announced(len(content), hashlib.sha256(content).hexdigest())


def receive(folder: Path, files: Mapping[str, Announced], texts: Mapping[str, str] | None = None) -> dict[str, int]:
    """Put what has arrived in place. Names that are still lacking, with the bytes of them that are here.

    ``texts`` are those of the files that came with the announcement, by name.

    Raises `FileError` for the disk, and for a name that leads out of the folder.
    """
    lacking = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = _verified(folder)
        for name, announced in files.items():
            if Path(name).name != name or name.startswith("."):
                raise FileError(folder / name, "not a plain file name")
            if not _in_place(folder / name, announced, known):
                if texts and name in texts:
                    (folder / f"{name}{PART_SUFFIX}").write_bytes(texts[name].encode())
                lacking[name] = _take(folder / name, announced, known)
        lacking = {name: nbytes for name, nbytes in lacking.items() if nbytes >= 0}
        write_atomically(folder / RECEIVED_FILE, json.dumps(known))
    except OSError as error:
        raise FileError(error.filename or folder, error.strerror or str(error)) from error
    return lacking


def _take(file: Path, announced: Announced, known: dict[str, Any]) -> int:
    """Rename the part of ``file`` if it is whole and right: -1 then, else the bytes of it that can be continued."""
    part = file.with_name(file.name + PART_SUFFIX)
    nbytes = part.stat().st_size if part.exists() else 0
    if nbytes < announced.nbytes:
        return nbytes
    if nbytes > announced.nbytes or sha256_of(part) != announced.sha256:
        part.unlink()
        return 0
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, file)
    known[file.name] = _mark(file, announced.sha256)
    return -1


def _in_place(file: Path, announced: Announced, known: dict[str, Any]) -> bool:
    if not file.exists() or file.stat().st_size != announced.nbytes:
        return False
    if known.get(file.name) == _mark(file, announced.sha256):
        return True
    if sha256_of(file) != announced.sha256:
        return False
    known[file.name] = _mark(file, announced.sha256)
    return True


def _mark(file: Path, sha256: str) -> list[Any]:
    facts = file.stat()
    return [facts.st_size, facts.st_mtime_ns, sha256]


def _verified(folder: Path) -> dict[str, Any]:
    """What was found right before, as far as can be read: at worst files are read once more."""
    try:
        known = json.loads((folder / RECEIVED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def sha256_of(file: Path) -> str:
    """Digest of a whole file. Raises `OSError`."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_NBYTES):
            digest.update(chunk)
    return digest.hexdigest()
