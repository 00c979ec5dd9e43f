"""A small Hub on loopback: what the real huggingface_hub client asks for when it downloads, and faults on demand.

Status codes and headers are those of huggingface.co: errors carry `X-Error-Code`, files `ETag` and `X-Repo-Commit`.
Nothing here knows the code under test.
"""

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 60  # longest wait for the other side, reached only when a test fails

_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """One model repository with one commit."""

    files: dict[str, bytes]
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False
    branches: tuple[str, ...] = ("main",)

    @property
    def sha(self) -> str:
        return hashlib.sha1(b"".join(name.encode() + self.files[name] for name in sorted(self.files))).hexdigest()


@dataclass(frozen=True)
class Request:
    """One request that came in."""

    method: str
    path: str
    range: str | None


class LoopbackHub:
    """The server and its state. Use as a context manager; `url` is its `HF_ENDPOINT`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.served: set[str] = set()
        self.status: int | None = None  # answer everything with this status
        self.login_page = False  # answer everything as a network's login page does
        self.reset_all = False  # reset every connection
        self.refused_token: str | None = None
        self.cut_once: dict[str, int] = {}  # file → bytes of the body after which the connection is closed, once
        self.reset_once: dict[str, Callable[[], object]] = {}  # file → called, then the connection is reset, once
        self.before_body: dict[str, Callable[[], object]] = {}  # file → called before its content is sent
        self.changed = Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self.make_handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "LoopbackHub":
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def make_handler(self) -> type[BaseHTTPRequestHandler]:
        """What answers a request; a Hub that does more than this one returns more."""
        return _handler(self)

    def stop(self) -> None:
        """From now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def fetched(self, file: str) -> list[Request]:
        """The GET requests for the content of a file."""
        return [r for r in self.requests if r.method == "GET" and r.path.endswith(f"/{file}") and "/resolve/" in r.path]

    def wait_served(self, *files: str) -> None:
        """Wait until the whole content of every file named has been sent."""
        with self.changed:
            assert self.changed.wait_for(lambda: set(files) <= self.served, WAIT_S), self.served


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are sent apart; the second would wait for the first's receipt

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = urlsplit(self.path).path
            hub.requests.append(Request(self.command, path, self.headers.get("Range")))
            if hub.status is not None:
                return self._error(hub.status, "", "out of order")
            if hub.reset_all:
                return self._reset()
            if hub.login_page:
                return self._send(200, b"<html>Log in to this network</html>", {"Content-Type": "text/html"})
            if hub.refused_token and self.headers.get("Authorization") == f"Bearer {hub.refused_token}":
                return self._error(401, "", "Invalid credentials in Authorization header")
            if match := _API.fullmatch(path):
                return self._api(match[1], match[2], unquote(match[3] or "main"))
            if match := _RESOLVE.fullmatch(path):
                return self._file(match[1], unquote(match[2]), unquote(match[3]))
            return self._error(404, "", "no such page")

        def _repo(self, name: str, revision: str) -> Repo | None:
            """The repository, or None after an error has been sent."""
            repo = hub.repos.get(name)
            if repo is None:
                # Without a login the Hub does not tell missing repositories from private ones.
                status = 404 if self.headers.get("Authorization") else 401
                self._error(status, "RepoNotFound", "Repository not found")
                return None
            if revision not in (*repo.branches, repo.sha):
                self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return None
            return repo

        def _api(self, name: str, what: str | None, revision: str) -> None:
            if (repo := self._repo(name, revision)) is None:
                return None
            if what == "tree":
                oids = {file: hashlib.sha1(content).hexdigest() for file, content in repo.files.items()}
                sizes = {file: len(content) for file, content in repo.files.items()}
                return self._json([{"type": "file", "path": f, "size": sizes[f], "oid": oids[f]} for f in repo.files])
            siblings = [{"rfilename": file} for file in repo.files]
            return self._json({"id": name, "sha": repo.sha, "cardData": repo.card or None, "siblings": siblings})

        def _file(self, name: str, revision: str, file: str) -> None:
            if (repo := self._repo(name, revision)) is None:
                return None
            if repo.gated:
                return self._error(
                    403 if self.headers.get("Authorization") else 401, "GatedRepo", "Access is restricted"
                )
            if file not in repo.files:
                return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.sha})
            content = repo.files[file]
            etag = hashlib.sha1(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.sha, "Accept-Ranges": "bytes"}
            start, end = 0, len(content)
            if range_ := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start, end = int(range_[1]), min(end, int(range_[2] or end) + 1)
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            return self._body(file, 206 if range_ else 200, content[start:end], headers)

        def _body(self, file: str, status: int, content: bytes, headers: dict[str, str]) -> None:
            if self.command == "GET" and (before_reset := hub.reset_once.pop(file, None)):
                before_reset()
                return self._reset()
            if self.command == "GET" and (before := hub.before_body.get(file)):
                before()
            if self.command == "GET" and (num_bytes := hub.cut_once.pop(file, None)) is not None:
                self._start(status, len(content), headers)
                self.wfile.write(content[:num_bytes])
                self.close_connection = True
                return None
            self._send(status, content, headers)
            if self.command == "GET":
                with hub.changed:
                    hub.served.add(file)
                    hub.changed.notify_all()
            return None

        def _reset(self) -> None:
            # Closing with a zero linger time sends RST, as a dying router does.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def _json(self, content: object) -> None:
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
            body = json.dumps({"error": message}).encode()
            self._send(status, body, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self._start(status, len(content), headers)
            if self.command != "HEAD":
                self.wfile.write(content)

        def _start(self, status: int, num_bytes: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(num_bytes)}.items():
                self.send_header(key, value)
            self.end_headers()

    return Handler


@dataclass(frozen=True)
class Outcome:
    """What one client process did: its answer (see `hub_client.py`), and everything it wrote."""

    answer: dict[str, Any]
    stdout: str
    stderr: str


class Client:
    """Runs the code under test in a process of its own: huggingface_hub reads its environment once, when imported."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.endpoint, self.home = endpoint, home

    def run(self, *arguments: str, **environment: str) -> Outcome:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        ours = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
        }
        process = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "hub_client.py"), *arguments],
            env={**kept, **ours, **environment},
            capture_output=True,
            text=True,
            timeout=2 * WAIT_S,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        answer = json.loads(process.stdout.splitlines()[-1])
        return Outcome(answer, process.stdout, process.stderr)
