"""A worker's second thread: it hears the launcher while the main thread may sit in a receive that nothing ends.

It ends the process at once when stdin ends or when the launcher was not heard within the lease: then the launcher is
gone, whatever became of it, and no port, socket or memory must outlive it.
"""

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from skulk_core.cluster.frames import Frame, FrameError, read_frame, write_frame

BEAT_S = 1.0
EXIT_LAUNCHER_GONE = 70
_LEASES_CHECKED_S = 0.5


class Control:
    """Frames from and to the launcher. Frames that nobody handles at once wait for `next`."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, lease_s: float) -> None:
        self._stdin, self._stdout, self._lease_s = stdin, stdout, lease_s
        self._heard_s = time.monotonic()
        self._writing = threading.Lock()
        self._waiting: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._at_once: dict[str, Callable[[Frame], None]] = {}

    def at_once(self, kind: str, handle: Callable[[Frame], None]) -> None:
        """Have frames of ``kind`` handled by the control thread, whatever the main thread is doing."""
        self._at_once[kind] = handle

    def start(self) -> None:
        """Begin to listen and to beat."""
        for work in (self._listen, self._beat, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def say(self, kind: str, **fields: object) -> None:
        """Tell the launcher; a launcher that does not listen any more ends the process."""
        try:
            with self._writing:
                write_frame(self._stdout, {"kind": kind, **fields})
        except OSError:
            os._exit(EXIT_LAUNCHER_GONE)

    def next(self) -> Frame:
        """Wait for the next frame that concerns the main thread."""
        return self._waiting.get()

    def _listen(self) -> None:
        try:
            while (frame := read_frame(self._stdin)) is not None:
                self._heard_s = time.monotonic()
                handle = self._at_once.get(frame["kind"])
                if handle is not None:
                    handle(frame)
                elif frame["kind"] != "beat":
                    self._waiting.put(frame)
        except (FrameError, OSError):
            pass  # as good as gone
        os._exit(EXIT_LAUNCHER_GONE)

    def _beat(self) -> None:
        while True:
            self.say("beat")
            time.sleep(BEAT_S)

    def _watch(self) -> None:
        # a clock that jumps because this process was stopped must not end it before it could listen again
        checked_s = time.monotonic()
        while True:
            time.sleep(_LEASES_CHECKED_S)
            now_s = time.monotonic()
            if now_s - checked_s > 4 * _LEASES_CHECKED_S:
                self._heard_s = max(self._heard_s, now_s - self._lease_s / 2)
            checked_s = now_s
            if now_s - self._heard_s > self._lease_s:
                os._exit(EXIT_LAUNCHER_GONE)
