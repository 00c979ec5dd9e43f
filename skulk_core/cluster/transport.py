"""Starts `skulk` on a host, by a child process here or by ssh, and ends it there.

A started process speaks over its stdin and stdout. On stdout, whatever a login prints comes before the program's own
start marker. When `poll()` says that it ended before that, `failure()` is the reason as a typed error.

Whatever ends this process, also its own `kill -9`, closes the child's stdin; the worker ends itself on that, so nothing
is left on either side. Only a stopped process cannot see it: `kill(pid)` is for that one.
"""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from skulk_core.cluster.peers import Host
from skulk_core.cluster.ssh import kill_script, remote_script, ssh_command, why_it_ended
from skulk_core.errors import PeerError, ProgramMissing

_TAIL_LINES, _LINE_NBYTES = 30, 2000
_KILL_TIMEOUT_S = 15.0
_REAP_S = 5.0
_ROOT = Path(__file__).resolve().parents[2]
# The code that runs here, whatever else is installed or lies in the current folder.
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.skulk import main; sys.argv[0] = 'skulk'; main()"


def own_command() -> tuple[str, ...]:
    """The words that start this very `skulk`, with this interpreter."""
    return (sys.executable, "-P", "-c", _START, str(_ROOT))


class StartedProcess:
    """A program of ours on a host. Made by `start`; safe to use from several threads."""

    def __init__(self, host: Host, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.place = host
        self.host = host.name
        self.stdin = cast(BinaryIO, process.stdin)
        self.stdout = cast(BinaryIO, process.stdout)
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._reader = threading.Thread(
            target=self._read_stderr, args=(cast(BinaryIO, process.stderr),), name=f"stderr of {host.name}", daemon=True
        )
        self._reader.start()
        self._lock = threading.Lock()
        self._killed_pid: int | None = None

    def poll(self) -> int | None:
        """Exit code of the local process (for ssh: of ssh, which passes on the program's); None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The same, once it ended; None if it still runs after ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self, pid: int | None = None) -> None:
        """End it at once; never raises, and may be called again.

        ``pid`` is what the program said its own is. Over ssh that process is ended by a login of its own, which a
        stopped one needs.
        """
        with suppress(ProcessLookupError, PermissionError):
            if self._process.poll() is None:
                # its session is its own: whatever it has started ends with it
                os.killpg(self._process.pid, 9)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)
        if pid is None or self.place.ssh is None:
            return
        with self._lock:
            if self._killed_pid == pid:
                return
            self._killed_pid = pid
        # not a daemon: the interpreter waits for it, or a stopped worker would stay where it is
        threading.Thread(target=_kill_there, args=(self.place, pid), name=f"kill on {self.host}").start()

    def stderr_tail(self) -> str:
        """The last lines that it wrote to stderr, ssh's own among them; all of them once it ended."""
        if self._process.poll() is not None:
            self._reader.join(_REAP_S)
        return "\n".join(self._tail.copy())

    def failure(self) -> PeerError:
        """Why it ended before its start marker; it has ended, or its stdout has."""
        code = self.wait(_REAP_S)
        self._reader.join(_REAP_S)
        return why_it_ended(self.place, code, self.stderr_tail())

    def _read_stderr(self, stream: BinaryIO) -> None:
        with stream, suppress(ValueError, OSError):
            while line := stream.readline(_LINE_NBYTES):
                self._tail.append(line.decode(errors="replace").rstrip("\r\n"))


def start(host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> StartedProcess:
    """Run `skulk ARGUMENTS…` on ``host`` with ``environment`` added to its own.

    Raises `ProgramMissing` if there is no ssh on this machine, `PeerError` if no process can be started here.
    """
    if host.ssh is None:
        command = [*own_command(), *arguments]
        settings: dict[str, str] | None = {**os.environ, **environment}
    else:
        command = ssh_command(host, remote_script(host.command, arguments, environment))
        settings = None
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=settings,
            # Ctrl-C is for the launcher alone, and ssh has no terminal on which to ask for a password
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ProgramMissing("ssh", "not found, and the other hosts are reached by it") from error
    except OSError as error:
        raise PeerError(host.name, f"no process can be started here: {error.strerror or error}") from error
    return StartedProcess(host, process)


def _kill_there(host: Host, pid: int) -> None:
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            ssh_command(host, kill_script(pid)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_KILL_TIMEOUT_S,
            start_new_session=True,
            check=False,
        )
