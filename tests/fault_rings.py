"""Rings of `skulk run` whose workers, logins and links can be broken: local ranks, or hosts in network namespaces."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cli_runner import Argument, Program, command
from netns import Cluster, NetHost
from proc_files import children, listeners, sockets

GONE_S = 45.0  # longest wait until nothing is left, reached only when something stays
_WORKER = "worker --lease"
_MARK = "SKULK_FAULTS"


@dataclass(frozen=True)
class Rank:
    """A rank that runs now. ``child`` is the launcher's own child: ssh for a rank on another host, else the worker."""

    name: str
    child: int
    host: NetHost | None = None

    @property
    def pid(self) -> int:
        """The worker's process."""
        if self.host is None:
            return self.child
        # one of an epoch before may still be ending
        return max(self.host.processes(_WORKER), key=_began)


class Ring(Protocol):
    """Where a text is decoded."""

    name: str

    def start(self, *arguments: Argument) -> "subprocess.Popen[bytes]":
        """Start `skulk run`; stdout and stderr are pipes."""
        ...

    def ranks(self, launcher: int) -> list[Rank]:
        """Those of the epoch in use; the last one decides."""
        ...

    def heal(self) -> None:
        """Every link is up again."""
        ...

    def left(self) -> list[str]:
        """What is still there of a run that has ended, after waiting for it to go."""
        ...


class LocalRing:
    """Ranks that are processes of this machine."""

    def __init__(self, program: Program, count: int = 3) -> None:
        self.name, self._peers = f"local:{count}", f"local:{count}"
        self._mark = uuid.uuid4().hex
        self._temporary = program.home / "tmp"
        self._temporary.mkdir(exist_ok=True)
        self._program = program
        self._environment = {_MARK: self._mark, "TMPDIR": str(self._temporary)}
        self._sockets: set[str] = set()

    def start(self, *arguments: Argument) -> "subprocess.Popen[bytes]":
        return self._program.start(*arguments, "--peers", self._peers, **self._environment)

    def ranks(self, launcher: int) -> list[Rank]:
        workers = [pid for pid in children(launcher) if _WORKER in _command_line(pid)]
        for pid in workers:
            self._sockets |= sockets(pid)
        return [Rank(f"local#{rank + 1}", pid) for rank, pid in enumerate(sorted(workers, key=_began))]

    def heal(self) -> None:
        """Nothing but processes can fail here."""

    def left(self) -> list[str]:
        until_s = time.monotonic() + GONE_S
        while (found := _marked(self._mark)) and time.monotonic() < until_s:
            time.sleep(0.1)
        said = [f"process {pid}: {_command_line(pid)}" for pid in found]
        said += [f"a port of a worker, {port}" for port, inode in listeners().items() if inode in self._sockets]
        # kernels that MLX compiled are kept on purpose
        said += [f"the file {path}" for path in self._temporary.iterdir() if path.name != "mlx"]
        return said


class SshRing:
    """Hosts `a` and `b` by ssh; this host decides, or with ``drives_only`` it holds no rank and `b` decides."""

    def __init__(self, cluster: Cluster, program: Program, *, drives_only: bool = False) -> None:
        self.name = "ssh:2, driven from here" if drives_only else "ssh:2 and here"
        self._peers = "a,b,local:0" if drives_only else "a,b"
        self._cluster, self._program = cluster, program
        self._mark = uuid.uuid4().hex

    def start(self, *arguments: Argument) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._cluster.at_home(command([*arguments, "--peers", self._peers])),
            env=self._program.environment({**self._cluster.environment(), _MARK: self._mark}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def ranks(self, launcher: int) -> list[Rank]:
        found = []
        for pid in sorted(children(launcher), key=_began):
            line = _command_line(pid)
            if _WORKER in line:
                host = next((host for host in self._cluster.hosts if host.peer in line), None)
                found.append(Rank("local" if host is None else host.name, pid, host))
        return found

    def heal(self) -> None:
        for host in self._cluster.hosts:
            host.set_link(up=True)

    def left(self) -> list[str]:
        until_s = time.monotonic() + GONE_S
        while (found := self._processes()) and time.monotonic() < until_s:
            time.sleep(0.1)
        ports = [f"{host.name}: port {port}" for host in self._cluster.hosts for port in host.listening() - {22, 2222}]
        return found + ports

    def _processes(self) -> list[str]:
        here = [f"process {pid}: {_command_line(pid)}" for pid in _marked(self._mark)]
        there = [
            f"{host.name}: process {pid}: {line}"
            for host in self._cluster.hosts
            for pid, line in host.processes(_WORKER).items()
        ]
        return here + there


@dataclass(frozen=True)
class Fault:
    """A way to break a ring in mid-text; `break_one` says what it broke."""

    name: str
    how: str
    decider: bool = False
    count: int = 1
    # the host does not come back within the text: whatever else happens to it must happen before
    leaves_out: bool = False

    def break_one(self, ranks: Sequence[Rank], choice: float) -> str:
        """Break the decider, or others by ``choice`` from 0 to 1. Raises `LookupError` where no such rank is there."""
        broken = self._victims(ranks, choice)
        for rank, pid in [(rank, rank.child if self.how == "ssh" else rank.pid) for rank in broken]:
            if self.how == "link":
                assert rank.host is not None
                rank.host.set_link(up=False)
            else:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP if self.how == "stop" else signal.SIGKILL)
        return ", ".join(rank.name for rank in broken)

    def _victims(self, ranks: Sequence[Rank], choice: float) -> list[Rank]:
        far = [rank for rank in ranks if rank.host is not None]
        if self.count > 1:
            able = far if self.how in ("ssh", "link") else list(ranks)
            if len(able) < self.count:
                raise LookupError
            spared = int(choice * len(able))
            return [rank for index, rank in enumerate(able) if index != spared or len(able) == self.count]
        if self.decider:
            able = ranks[-1:]
        elif self.how in ("ssh", "link"):
            able = [rank for rank in far if rank is not ranks[-1]]
        else:
            able = list(ranks[:-1])
        if self.how in ("ssh", "link"):
            able = [rank for rank in able if rank.host is not None]
        if not able:
            raise LookupError
        return [able[int(choice * len(able))]]


LOCAL_FAULTS = (
    Fault("kill -9 of a worker", "kill"),
    Fault("kill -9 of the decider", "kill", decider=True),
    Fault("kill -9 of two of three", "kill", count=2),
    Fault("SIGSTOP of a worker", "stop"),
    Fault("SIGSTOP of the decider", "stop", decider=True),
)
SSH_FAULTS = (
    Fault("kill -9 of a worker", "kill"),
    Fault("kill -9 of the decider", "kill", decider=True),
    Fault("kill -9 of ssh", "ssh"),
    Fault("SIGSTOP of a worker", "stop"),
    Fault("SIGSTOP of the decider", "stop", decider=True),
    Fault("link down", "link", leaves_out=True),
    Fault("links of two of three down", "link", count=2, leaves_out=True),
)
# where another host decides, its login and its link can be lost too
DRIVEN_FAULTS = (
    Fault("kill -9 of the decider", "kill", decider=True),
    Fault("kill -9 of the decider's ssh", "ssh", decider=True),
    Fault("SIGSTOP of the decider", "stop", decider=True),
    Fault("link of the decider down", "link", decider=True, leaves_out=True),
)


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _began(pid: int) -> tuple[int, int]:
    """Orders processes by their start."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
    return 0, pid


def _marked(mark: str) -> list[int]:
    """Processes that were started with ``mark`` in their environment, or by one that was."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found
