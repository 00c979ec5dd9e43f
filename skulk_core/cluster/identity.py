"""What a rank has loaded, in a few digests that can be compared between hosts without reading whole files.

Of every weight file: its size, its header (names, types, shapes, places of all tensors) and samples of its data. Two
hosts with another quantisation, another revision or a truncated copy differ in them; a file altered between the
samples would not show.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skulk_core.errors import FileError

_SAMPLES, _SAMPLE_NBYTES = 16, 4096
_HEADER_NBYTES = 1 << 20


@dataclass(frozen=True)
class Identity:
    """Digests of a configuration and of the weight files that are there, by name."""

    config: str
    files: Mapping[str, str]


def identity_of(config: Mapping[str, object], files: Iterable[Path]) -> Identity:
    """The identity of what is loaded from ``files`` with ``config``. Raises `FileError`."""
    canonical = json.dumps(config, sort_keys=True, default=str).encode()
    return Identity(_short(hashlib.sha256(canonical)), {file.name: file_digest(file) for file in files})


def file_digest(file: Path) -> str:
    """Digest of a file's size, beginning, end, and samples between. Raises `FileError`."""
    digest = hashlib.sha256()
    try:
        size = file.stat().st_size
        digest.update(str(size).encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_HEADER_NBYTES))
            for sample in range(_SAMPLES):
                stream.seek(max(0, (size - _SAMPLE_NBYTES) * (sample + 1) // _SAMPLES))
                digest.update(stream.read(_SAMPLE_NBYTES))
    except OSError as error:
        raise FileError(file, error.strerror or str(error)) from error
    return _short(digest)


def _short(digest: "hashlib._Hash") -> str:
    return digest.hexdigest()[:16]
