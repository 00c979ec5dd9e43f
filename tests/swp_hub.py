"""A Hub on loopback that serves checkpoints from folders: byte ranges, a separate storage host, and faults on demand.

Weight files are answered as huggingface.co answers them: the Hub redirects to its storage, which is another host, and
states size and ETag on the redirect. Every byte of a body is counted. Nothing here knows the code under test.
"""

import hashlib
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from urllib.parse import unquote, urlsplit

_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_CHUNK_NBYTES = 1 << 18


@dataclass
class Faults:
    """What goes wrong with one repository's weight files.

    `statuses` are answered once each, in order, with their headers; `cut_after` are bytes of a body after which the
    connection is reset, once each. `on_sent` is called with all bytes sent so far.
    """

    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    no_ranges: bool = False
    shifted: bool = False
    other_etag_from: int | None = None
    refused_token: str = ""
    on_sent: Callable[[int], None] | None = None


@dataclass
class HubRepo:
    """One repository: the files of a folder, as one commit."""

    folder: Path
    sha: str
    branches: tuple[str, ...] = ("main",)
    faults: Faults = field(default_factory=Faults)
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    etags: dict[str, str] = field(default_factory=dict)

    @property
    def sent_weights_nbytes(self) -> int:
        """Bytes of bodies of weight files."""
        return sum(nbytes for name, nbytes in self.sent.items() if name.endswith(".safetensors"))

    def ranges(self) -> list[str]:
        """The `Range` of every request to the storage for a part of a weight file."""
        return [asked for where, _, asked in self.requests if where == "storage" and asked is not None]

    def etag(self, name: str) -> str:
        """A sha256 of what stands for the content: its name, size and time, so that large files need not be read."""
        if self.faults.other_etag_from is not None and len(self.requests) > self.faults.other_etag_from:
            return "f" * 64
        facts = (self.folder / name).stat()
        return hashlib.sha256(f"{name} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()


class SwpHub:
    """The two servers and their state. Use as a context manager; `url` is its `HF_ENDPOINT`."""

    def __init__(self) -> None:
        self.repos: dict[str, HubRepo] = {}
        self.tokens_at_storage: list[str] = []
        self.tokens_at_hub: list[str] = []
        self.lock = Lock()
        self._servers = [_Server(("127.0.0.1", 0), kind) for kind in (_hub(self), _storage(self))]
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def __enter__(self) -> "SwpHub":
        for server in self._servers:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, name: str, folder: Path, **changes: object) -> HubRepo:
        """Serve a folder as the repository `name`."""
        sha = hashlib.sha1(f"{name} {folder}".encode()).hexdigest()
        self.repos[name] = HubRepo(folder, sha, **changes)  # type: ignore[arg-type]
        return self.repos[name]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every small answer waits for an acknowledgement

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def start(self, status: int, nbytes: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(nbytes)}.items():
            self.send_header(key, value)
        self.end_headers()

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.start(status, len(content), headers or {})
        if self.command != "HEAD":
            self.wfile.write(content)

    def reset(self) -> None:
        # Closing with a zero linger time sends RST, as a dying router does.
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def body(self, hub: SwpHub, repo: HubRepo, name: str, headers: dict[str, str]) -> None:
        """A file or the range of it that was asked for, counted."""
        path, size = repo.folder / name, (repo.folder / name).stat().st_size
        begin, end, status = 0, size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if asked and not repo.faults.no_ranges:
            begin, end, status = int(asked[1]), min(int(asked[2]) + 1, size), 206
            if repo.faults.shifted and end - begin > 1024:
                begin, end = begin - 16, end - 16
            headers = {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{size}"}
        self.start(status, end - begin, {**headers, "Accept-Ranges": "bytes"})
        if self.command == "HEAD":
            return
        large = name.endswith(".safetensors") and end - begin > 1024
        with hub.lock:
            cut = repo.faults.cut_after.pop(0) if large and repo.faults.cut_after else None
        try:
            with path.open("rb") as stream:
                stream.seek(begin)
                while begin < end:
                    chunk = stream.read(min(_CHUNK_NBYTES, end - begin, cut or _CHUNK_NBYTES))
                    self.wfile.write(chunk)
                    begin += len(chunk)
                    with hub.lock:
                        repo.sent[name] += len(chunk)
                    if name.endswith(".safetensors") and repo.faults.on_sent is not None:
                        repo.faults.on_sent(repo.sent_weights_nbytes)
                    if cut is not None:
                        return self.reset()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def _hub(hub: SwpHub) -> type[_Handler]:
    class Hub(_Handler):
        def answer(self) -> None:
            path = urlsplit(self.path).path
            if token := self.headers.get("Authorization"):
                hub.tokens_at_hub.append(token)
            if match := _API.fullmatch(path):
                return self.api(match[1], unquote(match[2] or "main"))
            if match := _FILE.fullmatch(path):
                return self.file(match[1], unquote(match[2]), unquote(match[3]))
            return self.send(404, b"{}")

        def find(self, name: str, revision: str) -> HubRepo | None:
            repo = hub.repos.get(name)
            if repo is None:
                self.send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif revision not in (*repo.branches, repo.sha):
                self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return None
            return repo

        def api(self, name: str, revision: str) -> None:
            if (repo := self.find(name, revision)) is None:
                return
            files = sorted(path.name for path in repo.folder.iterdir())
            siblings = [{"rfilename": file} for file in files]
            self.send(200, json.dumps({"id": name, "sha": repo.sha, "siblings": siblings}).encode())

        def file(self, name: str, revision: str, file: str) -> None:
            if (repo := self.find(name, revision)) is None:
                return
            assert revision == repo.sha, "a file was asked for by a branch, which may move"
            repo.requests.append(("hub", file, self.headers.get("Range")))
            with hub.lock:
                status = repo.faults.statuses.pop(0) if repo.faults.statuses and self.command == "GET" else None
            if status is not None:
                return self.send(status[0], b'{"error": "out of order"}', status[1])
            if not (repo.folder / file).is_file():
                return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            headers = {"X-Repo-Commit": repo.sha}
            if not file.endswith(".safetensors"):
                return self.body(hub, repo, file, {**headers, "ETag": f'"{repo.etag(file)[:40]}"'})
            linked = {
                "X-Linked-Etag": f'"{repo.etag(file)}"',
                "X-Linked-Size": str((repo.folder / file).stat().st_size),
                "Location": f"{hub.storage_url}/{name}/resolve/x/{file}?signed=1",
            }
            return self.send(302, b"", {**headers, **linked})

    return Hub


def _storage(hub: SwpHub) -> type[_Handler]:
    class Storage(_Handler):
        def answer(self) -> None:
            if token := self.headers.get("Authorization"):
                hub.tokens_at_storage.append(token)
            match = _FILE.fullmatch(urlsplit(self.path).path)
            assert match, self.path
            repo, file = hub.repos[match[1]], unquote(match[3])
            repo.requests.append(("storage", file, self.headers.get("Range")))
            self.body(hub, repo, file, {"ETag": '"of-the-storage"'})

    return Storage
