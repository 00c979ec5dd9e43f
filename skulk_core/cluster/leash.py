"""Programs that must not outlive this process, and do not end by themselves when it does.

Between them and us stands a process of ours, which this file is when it is run as a script. It holds one end of a pipe;
the other ends with us, also by `kill -9`, and then it kills its process group: itself, the program, and what that has
started. Nothing else does this on every system.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_BY_SIGNAL = 128


class Leashed:
    """A program that ends with this process at the latest. It reads ``said`` as its stdin."""

    def __init__(self, command: Sequence[str], folder: Path, said: str) -> None:
        """Start it in ``folder``. Raises `OSError` if no process can be started."""
        self._said = said
        ours, self._held = os.pipe()
        try:
            self._process = subprocess.Popen(
                # nothing of the user's own Python: it must start whatever is installed, and soon
                [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(ours), *command],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=[ours],
                start_new_session=True,
            )
        except BaseException:
            os.close(self._held)
            raise
        finally:
            os.close(ours)

    def finish(self) -> tuple[int, str]:
        """Wait until it ends: its exit code, and what it wrote to stderr. It is ended if the wait is broken off."""
        try:
            _, errors = self._process.communicate(self._said)
        finally:
            os.close(self._held)
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        return self._process.returncode, errors


def _run(held: int, command: Sequence[str]) -> int:
    # it inherits no descriptor: one more holder of the pipe's other end would keep it open
    process = subprocess.Popen(command)
    threading.Thread(target=_end_with, args=(held,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else _BY_SIGNAL - code


def _end_with(held: int) -> None:
    os.read(held, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(_run(int(sys.argv[1]), sys.argv[2:]))
