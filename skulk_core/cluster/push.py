"""`--push`: copies the files that a host's layers need from this one, by sftp, and has the host verify them.

They go to `~/.cache/skulk/pushed/NAME-DIGEST/` there, a folder for each checkpoint, which grows by what other layers
need. A copy that was cut off is continued; nothing takes its final name before its digest was found right. Nothing is
written on this machine, and sftp ends with this process, however that ends.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from skulk_core.cluster.frames import FrameError, read_frame, skip_banner, write_frame
from skulk_core.cluster.leash import Leashed
from skulk_core.cluster.peers import Host
from skulk_core.cluster.receiving import PART_SUFFIX, RECEIVED_FILE, Announced, announced_text, sha256_of
from skulk_core.cluster.ssh import ssh_options, why_it_ended
from skulk_core.cluster.transport import start
from skulk_core.errors import FileError, PeerError, ProgramMissing
from skulk_core.formats.elsewhere import ELSEWHERE_FILE, AbsentTensor, elsewhere_text
from skulk_core.formats.head_names import ANY_HEAD_TENSOR, belongs_to_head, files_of_head
from skulk_core.hub.headers import INDEX_FILE, CheckpointHeaders
from skulk_core.hub.progress import OnProgress

RECEIVE_COMMAND = "receive"
_FOLDER = "~/.cache/skulk/pushed"
_BESIDE = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_PLAIN = re.compile(r"[\w][\w.+-]*", re.ASCII)
_MOST_ATTEMPTS = 3


class Pusher:
    """Copies parts of one checkpoint, a folder of this machine. Digests are worked out once for each file."""

    def __init__(self, folder: Path, headers: CheckpointHeaders, on_progress: OnProgress | None = None) -> None:
        self._folder, self._headers, self._on_progress = folder, headers, on_progress
        self._announced: dict[Path, Announced] = {}

    def push(self, host: Host, needed: Callable[[str], bool]) -> str:
        """Copy what holds the tensors that ``needed`` names. The folder there. Raises `PeerError`, `FileError`."""
        assert host.ssh is not None
        weights = {tensor.file for tensor in self._headers.model}
        wanted = sorted({tensor.file for tensor in self._headers.model if needed(tensor.name)})
        beside = [
            file
            for file in sorted(self._folder.iterdir())
            if file.suffix in _BESIDE and file.name not in (ELSEWHERE_FILE, RECEIVED_FILE)
        ]
        if needed(ANY_HEAD_TENSOR) and not any(belongs_to_head(tensor.name) for tensor in self._headers.model):
            names = (file.name for file in self._folder.iterdir())
            beside += [self._folder / name for name in files_of_head(names, {file.name for file in weights})]
        remote = f"{_FOLDER}/{self._name(weights)}"
        texts = {}
        files = {file.name: file for file in [*beside, *wanted]}
        if INDEX_FILE in files and len(wanted) < len(weights):
            # of the whole checkpoint: which of them are there, the host sees
            texts[ELSEWHERE_FILE] = elsewhere_text(self._all())
        return self._send(host, remote, files, texts)

    def _all(self) -> list[AbsentTensor]:
        return [AbsentTensor(one.name, one.dtype, one.shape, one.file.name) for one in self._headers.model]

    def _name(self, weights: set[Path]) -> str:
        """Of the folder there: the checkpoint's name, and what its headers and sizes amount to."""
        facts = sorted((tensor.file.name, tensor.name, tensor.dtype, tensor.shape) for tensor in self._headers.model)
        sizes = sorted((file.name, file.stat().st_size) for file in weights)
        digest = hashlib.sha256(json.dumps([facts, sizes]).encode()).hexdigest()[:12]
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', self._folder.name)[:40].lstrip('.-') or 'model'}-{digest}"

    def _send(self, host: Host, remote: str, files: Mapping[str, Path], texts: Mapping[str, str]) -> str:
        for name in files:
            if not _PLAIN.fullmatch(name):
                raise FileError(self._folder / name, "a name with such characters cannot be pushed")
        announced = {name: self._announce(file) for name, file in files.items()}
        announced |= {name: announced_text(text) for name, text in texts.items()}
        total = sum(one.nbytes for one in announced.values())
        folder, lacking = _ask(host, remote, announced, texts)
        for _ in range(_MOST_ATTEMPTS):
            if not lacking:
                break
            for name, here in lacking.items():
                if name in texts:
                    continue
                if self._on_progress is not None:
                    done = total - sum(announced[one].nbytes for one in lacking) + here
                    self._on_progress(f"{host.name}: {name}", done, total)
                _copy(host, files[name], f"{folder}/{name}{PART_SUFFIX}", resume=here > 0)
            folder, lacking = _ask(host, remote, announced, texts)
        if lacking:
            raise PeerError(host.name, f"{', '.join(lacking)} did not arrive as sent, in {_MOST_ATTEMPTS} attempts")
        return folder

    def _announce(self, file: Path) -> Announced:
        if file not in self._announced:
            try:
                self._announced[file] = Announced(file.stat().st_size, sha256_of(file))
            except OSError as error:
                raise FileError(file, error.strerror or str(error)) from error
        return self._announced[file]


def _ask(
    host: Host, remote: str, announced: Mapping[str, Announced], texts: Mapping[str, str]
) -> tuple[str, dict[str, int]]:
    """Have ``host`` put in place what it has: its folder, and names of what it lacks with the bytes that are there.

    ``texts`` are whole files, by name, which go along.
    """
    files = {name: asdict(one) for name, one in announced.items()}
    process = start(host, [RECEIVE_COMMAND, remote], {})
    try:
        with suppress(OSError):
            write_frame(process.stdin, {"kind": "files", "files": files, "texts": dict(texts)})
        frame = read_frame(process.stdout) if skip_banner(process.stdout) is None else None
        if frame is None:
            raise process.failure()
    except FrameError as error:
        raise PeerError(host.name, f"its answer cannot be read: {error}") from error
    finally:
        with suppress(OSError):
            process.stdin.close()
        process.kill()
    if frame["kind"] != "lacking":
        raise PeerError(host.name, str(frame.get("message")))
    return str(frame["folder"]), {str(name): int(nbytes) for name, nbytes in frame["files"].items()}


def _copy(host: Host, file: Path, remote: str, *, resume: bool) -> None:
    """Send or go on sending ``file``, whose name is plain, to the path ``remote``. Raises `PeerError`."""
    quoted = remote.replace("\\", "\\\\").replace('"', '\\"')
    # from its folder, by its name: a path may have what sftp takes for a pattern or the end of a word
    _sftp(host, f'{"reput" if resume else "put"} {file.name} "{quoted}"\n', file.parent)


def _sftp(host: Host, batch: str, folder: Path) -> None:
    assert host.ssh is not None
    port = [] if host.ssh.port is None else ["-P", str(host.ssh.port)]
    # sftp takes what follows a colon for a path: an IPv6 address needs brackets, which ssh would not take
    user, at, name = host.ssh.login.rpartition("@")
    login = f"{user}{at}[{name}]" if ":" in name else host.ssh.login
    program = shutil.which("sftp")
    if program is None:
        raise ProgramMissing("sftp", "not found, and --push copies by it")
    try:
        # Ctrl-C and `kill -9` end it: what has arrived stays, and is continued
        code, said = Leashed([program, *ssh_options(), *port, "-b", "-", "--", login], folder, batch).finish()
    except OSError as error:
        raise PeerError(host.name, f"no process can be started here: {error.strerror or error}") from error
    if code == 255:
        raise why_it_ended(host, code, said)
    if code:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "no reason given")
        raise PeerError(host.name, f"sftp failed: {last.strip()}")
