"""Byte ranges of a repository's files at one commit, over HTTP or from a folder.

Addresses, login, proxies and endpoint are huggingface_hub's own: a range is asked of the Hub, whose answer leads to
where the bytes are. On the way to another host the client drops the login by itself. Every answer is compared with the
file's ETag of the first, so that bytes of two versions never mix.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

import httpx2
from huggingface_hub import (
    HfApi,
    ModelInfo,
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from skulk_core.errors import FileError, HubError, SourceChanged
from skulk_core.hub.client_errors import CLIENT_ERRORS
from skulk_core.hub.progress import Cancelled
from skulk_core.hub.refs import RepoRef
from skulk_core.hub.retries import Attempts, OnWait, retrying

_CHUNK_NBYTES = 1 << 20
_SMALL_NBYTES = 128 << 20  # config, index, card: beyond this it is none of them
_SHA = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RangesRefused(Exception):
    """The server sends whole files only. Never leaves the code that reads."""


@dataclass(frozen=True)
class StoredFile:
    """A file where it is stored. `version` changes when its content does; `sha256` is None where nobody states it."""

    name: str
    nbytes: int
    version: str
    sha256: str | None


class CheckpointFiles(Protocol):
    """The files of one checkpoint, at one commit or in one folder. `str()` names it for a person."""

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the files, with forward slashes, sorted."""

    def stat(self, name: str) -> StoredFile:
        """Facts about a file, asked for once. Raises our errors if it is not there."""

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)`, in pieces. Raises `SourceChanged`, and `RangesRefused` before the first piece."""

    def read_whole(self, name: str) -> Iterator[bytes]:
        """All bytes, in pieces. Raises `SourceChanged`."""


def read_small(files: CheckpointFiles, name: str) -> bytes:
    """The whole content of a small file. Raises our errors, `FileError` for one that is not small."""
    content = bytearray()
    for chunk in files.read_whole(name):
        content += chunk
        if len(content) > _SMALL_NBYTES:
            raise FileError(name, f"is larger than {_SMALL_NBYTES >> 20} MiB; not read")
    return bytes(content)


def read_range(files: CheckpointFiles, name: str, begin: int, end: int) -> bytes:
    """Bytes `[begin, end)` of a file, also from a server that knows no ranges. Raises `FileError` if it is shorter."""
    try:
        content = b"".join(files.read(name, begin, end))
    except RangesRefused:
        content = b"".join(cut(files.read_whole(name), begin, end))
    if len(content) != end - begin:
        raise FileError(name, f"ends at byte {begin + len(content)}, before {end}")
    return content


def cut(chunks: Iterator[bytes], begin: int, end: int) -> Iterator[bytes]:
    """The bytes `[begin, end)` of a stream, which is left unread behind them."""
    at = 0
    for chunk in chunks:
        wanted = chunk[max(begin - at, 0) : max(end - at, 0)]
        at += len(chunk)
        if wanted:
            yield wanted
        if at >= end:
            return


class FolderFiles:
    """A checkpoint in a folder on disk. Nothing in it may change while it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stats: dict[str, StoredFile] = {}

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def names(self) -> tuple[str, ...]:
        """Files of the folder itself, without its subfolders."""
        try:
            return tuple(sorted(path.name for path in self.folder.iterdir() if path.is_file()))
        except OSError as error:
            raise FileError(self.folder, f"cannot be listed: {error.strerror or error}") from error

    def stat(self, name: str) -> StoredFile:
        """Facts about a file. Raises `FileError`."""
        if name not in self._stats:
            self._stats[name] = self._stat(name)
        return self._stats[name]

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)`. Raises `FileError`, `SourceChanged`."""
        stored = self.stat(name)
        if self._stat(name) != stored:
            raise SourceChanged(str(self.folder), name)
        try:
            with (self.folder / name).open("rb") as stream:
                stream.seek(begin)
                while begin < end and (chunk := stream.read(min(_CHUNK_NBYTES, end - begin))):
                    begin += len(chunk)
                    yield chunk
        except OSError as error:
            raise FileError(self.folder / name, f"cannot be read: {error.strerror or error}") from error

    def read_whole(self, name: str) -> Iterator[bytes]:
        """All bytes. Raises `FileError`, `SourceChanged`."""
        return self.read(name, 0, self.stat(name).nbytes)

    def _stat(self, name: str) -> StoredFile:
        try:
            facts = (self.folder / name).stat()
        except OSError as error:
            raise FileError(self.folder / name, "no such file" if error.errno == 2 else str(error.strerror)) from error
        return StoredFile(name, facts.st_size, f"{facts.st_ino}-{facts.st_mtime_ns}", None)


class HubFiles:
    """A repository's files at the commit `sha`. Safe to use from several threads.

    `on_wait` is told of every wait for a busy server or a broken connection; `cancel` ends it.
    """

    def __init__(
        self, repo: str, sha: str, names: Sequence[str], cancel: Event, on_wait: OnWait = lambda _: None
    ) -> None:
        assert _SHA.fullmatch(sha), sha
        self.repo, self.sha, self.cancel, self._on_wait = repo, sha, cancel, on_wait
        self._names = tuple(sorted(names))
        self._ref = RepoRef(repo, sha)
        self._stats: dict[str, StoredFile] = {}

    @staticmethod
    def at(ref: RepoRef, cancel: Event, on_wait: OnWait = lambda _: None) -> "HubFiles":
        """The repository at the commit that the branch, tag or commit of `ref` is now. Raises our Hub errors."""

        def ask() -> ModelInfo:
            return HfApi().model_info(ref.repo, revision=ref.revision, timeout=_timeout_s())

        info = retrying(ask, ref, cancel, on_wait)
        if info.sha is None or not _SHA.fullmatch(info.sha):
            raise HubError(ref.repo, f"the Hub names no commit for {ref.revision}")
        if _SHA.fullmatch(ref.revision) and info.sha != ref.revision:
            raise HubError(ref.repo, f"asked for commit {ref.revision}, the Hub answered with {info.sha}")
        # its own name, should the repository have been renamed
        repo = info.id if info.id and _REPO.fullmatch(info.id) else ref.repo
        return HubFiles(repo, info.sha, [file.rfilename for file in info.siblings or []], cancel, on_wait)

    def __str__(self) -> str:
        return f"{self.repo}@{self.sha}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every file of the commit, those of folders too."""
        return self._names

    def stat(self, name: str) -> StoredFile:
        """Facts about a file, by a HEAD request that is made once. Raises our Hub errors."""
        if name not in self._stats:
            facts = retrying(lambda: get_hf_file_metadata(self._url(name)), self._ref, self.cancel, self._on_wait)
            if facts.commit_hash not in (None, self.sha):
                raise HubError(self.repo, f"{name}: asked for commit {self.sha}, got {facts.commit_hash}")
            if facts.size is None or facts.etag is None:
                raise HubError(self.repo, f"{name}: the Hub states no size or no ETag for it")
            sha256 = facts.etag if _SHA256.fullmatch(facts.etag) else None
            self._stats[name] = StoredFile(name, facts.size, facts.etag, sha256)
        return self._stats[name]

    def read(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)`; a broken connection is taken up where it broke. Raises as `CheckpointFiles.read`."""
        yield from self._stream(name, begin, end, as_range=True)

    def read_whole(self, name: str) -> Iterator[bytes]:
        """All bytes; after a broken connection the next one's are skipped up to there."""
        yield from self._stream(name, 0, self.stat(name).nbytes, as_range=False)

    def _stream(self, name: str, begin: int, end: int, *, as_range: bool) -> Iterator[bytes]:
        attempts = Attempts(self._ref, self.cancel, self._on_wait)
        first, at = begin, begin
        while at < end:
            try:
                for chunk in self._answer(name, at, end) if as_range else self._rest(name, at):
                    at += len(chunk)
                    attempts.succeeded()
                    yield chunk
                if at < end:
                    raise httpx2.RemoteProtocolError(f"{end - at} bytes are missing")
            except RangesRefused:
                if at == first:
                    raise
                as_range, first = False, 0
            except CLIENT_ERRORS as error:
                attempts.failed(error)

    def _rest(self, name: str, at: int) -> Iterator[bytes]:
        """The file from `at` on, of an answer that has all of it."""
        return cut(self._answer(name, 0, None), at, self.stat(name).nbytes)

    def _answer(self, name: str, begin: int, end: int | None) -> Iterator[bytes]:
        """One request for `[begin, end)`, or for all. Raises the client's errors."""
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if end is not None:
            headers["Range"] = f"bytes={begin}-{end - 1}"
        stream = get_session().stream("GET", self._url(name), headers=headers, timeout=_timeout_s())
        with stream as response:
            if response.is_error:
                with suppress(httpx2.TransportError):
                    response.read()
            hf_raise_for_status(response)
            self._check_version(name, response)
            if end is not None and response.status_code != httpx2.codes.PARTIAL_CONTENT:
                raise RangesRefused(name)
            said = response.headers.get("Content-Range")
            if end is not None and said is not None and not said.startswith(f"bytes {begin}-"):
                raise HubError(self.repo, f"{name}: asked for bytes from {begin}, the answer says {said}")
            left = self.stat(name).nbytes if end is None else end - begin
            # as they come: collected into larger pieces, a broken connection would lose the last one
            for chunk in response.iter_bytes():
                if self.cancel.is_set():
                    raise Cancelled
                # a server may send more than it was asked for
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return

    def _check_version(self, name: str, response: httpx2.Response) -> None:
        """Raise `SourceChanged` unless the answer is of the version that `stat` saw."""
        etag = _etag(response)
        if etag is not None and etag != self.stat(name).version:
            raise SourceChanged(self.repo, name)

    def _url(self, name: str) -> str:
        return hf_hub_url(self.repo, name, revision=self.sha)


def _timeout_s() -> float:
    return constants.HF_HUB_DOWNLOAD_TIMEOUT


def _etag(response: httpx2.Response) -> str | None:
    """The Hub's ETag of the file: of the redirect that leads to its storage, or of a direct answer."""
    answers = [*response.history, response]
    linked = next((etag for one in answers if (etag := one.headers.get("X-Linked-Etag"))), None)
    etag = linked or (response.headers.get("ETag") if len(answers) == 1 else None)
    return None if etag is None else etag.removeprefix("W/").strip('"')
