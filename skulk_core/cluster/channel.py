"""The launcher's end of one worker: a thread that reads it, a thread that writes and beats, and what is known of it.

Neither a reader that is slow nor a worker that is stopped ever blocks whoever uses a channel.
"""

import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

from skulk_core.cluster.control import BEAT_S
from skulk_core.cluster.frames import Frame, FrameError, read_frame, skip_banner, write_frame
from skulk_core.errors import SkulkError, WorkerFailed

_REAP_S = 5.0
# How MLX's ring begins what it says of a socket that broke.
_LOST_NEIGHBOUR = "[ring]"


class WorkerProcess(Protocol):
    """A started worker; see the package's docstring."""

    host: str
    stdin: BinaryIO
    stdout: BinaryIO

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        ...

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, None if it still runs then."""
        ...

    def kill(self, pid: int | None = None) -> None:
        """End it at once."""
        ...

    def stderr_tail(self) -> str:
        """The last lines it wrote to stderr."""
        ...

    def failure(self) -> SkulkError:
        """Why it ended before it began to work."""
        ...


class Channel:
    """Frames to and from rank ``rank``. Every frame but a beat goes to ``events`` as ``(rank, frame)``; the end of
    the worker as ``(rank, None)``, once.
    """

    def __init__(
        self, rank: int, process: WorkerProcess, events: "queue.SimpleQueue[tuple[int, Frame | None]]"
    ) -> None:
        self.rank, self.host, self._process, self._events = rank, process.host, process, events
        self.hello: Mapping[str, Any] | None = None
        self._failed: Frame | None = None
        self._heard_s = time.monotonic()
        self._outgoing: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._closed = False
        for work in (self._read, self._write):
            threading.Thread(target=work, name=f"{work.__name__} rank {rank}", daemon=True).start()

    def send(self, kind: str, **fields: object) -> None:
        """Tell the worker something, soon."""
        self._outgoing.put({"kind": kind, **fields})

    @property
    def silent_s(self) -> float:
        """Seconds since it was last heard of."""
        return time.monotonic() - self._heard_s

    @property
    def is_witness(self) -> bool:
        """Whether it failed because of the ring, which another rank may have broken."""
        return self._failed is not None and self._failed["error"] in ("RingError", "RuntimeError")

    @property
    def lost_a_neighbour(self) -> bool:
        """Whether it failed because MLX's ring lost a connection, and tells of nothing else."""
        return self._failed is not None and str(self._failed["message"]).startswith(_LOST_NEIGHBOUR)

    @property
    def pid(self) -> int | None:
        """The worker's own process id, once it said so."""
        return None if self.hello is None else int(self.hello["pid"])

    def failure(self, reason: str = "") -> SkulkError:
        """What became of the worker, for a person: ``reason``, or what it said, or how it ended."""
        if self._failed is not None:
            return WorkerFailed(
                self.host,
                self._failed["message"],
                error=self._failed["error"],
                fields=self._failed.get("fields"),
            )
        if reason:
            return WorkerFailed(self.host, reason, _last_line(self._process.stderr_tail()))
        if self.hello is None:
            return self._process.failure()
        code = self._process.wait(_REAP_S)
        ended = "its worker does not answer any more" if code is None else f"its worker ended ({_ending(code)})"
        return WorkerFailed(self.host, ended, _last_line(self._process.stderr_tail()))

    def close(self) -> None:
        """Let go of the worker, which then ends by itself."""
        self._closed = True
        self._outgoing.put(None)

    def kill(self) -> None:
        """End the worker now, wherever it is."""
        self.close()
        self._process.kill(self.pid)

    def wait(self, timeout_s: float) -> bool:
        """Whether the worker has ended, after ``timeout_s`` at most."""
        return self._process.wait(timeout_s) is not None

    def _read(self) -> None:
        stream = self._process.stdout
        # whatever is wrong with the stream is told of as its end
        with suppress(FrameError, OSError, ValueError):
            if skip_banner(stream) is None:
                while (frame := read_frame(stream)) is not None:
                    self._heard_s = time.monotonic()
                    self._take(frame)
        self._events.put((self.rank, None))

    def _take(self, frame: Frame) -> None:
        match frame["kind"]:
            case "beat":
                return
            case "hello":
                self.hello = frame
            case "failed":
                self._failed = frame
        self._events.put((self.rank, frame))

    def _write(self) -> None:
        try:
            while True:
                try:
                    frame = self._outgoing.get(timeout=BEAT_S)
                except queue.Empty:
                    frame = {"kind": "beat"}
                if frame is None:
                    break
                write_frame(self._process.stdin, frame)
        except (OSError, ValueError):
            pass  # its end is told of by the reader
        finally:
            with suppress(OSError):
                self._process.stdin.close()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
