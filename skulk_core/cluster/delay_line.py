"""One direction of a link that is slower than the real one: what is taken in now is handed over later."""

import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# As much as is taken in at once. At a limited rate less: the parts of a message leave one after another.
_READ_NBYTES, _PACED_NBYTES = 1 << 16, 1 << 12
# Beyond this a sender waits, as at a real link that is full.
_MOST_UNDER_WAY_NBYTES = 256 << 20


@dataclass(frozen=True)
class LinkShape:
    """What every link is made to be: ``delay_s`` one way, and at most ``rate_mbps`` Mbit/s each way, None: as it is."""

    delay_s: float = 0.0
    rate_mbps: float | None = None

    @property
    def is_real(self) -> bool:
        """Whether nothing is changed."""
        return not self.delay_s and self.rate_mbps is None


class DelayLine:
    """From ``source`` to ``sink``, both of them non-blocking; somebody else waits until it has something to do.

    ``under_way_nbytes`` counts what was taken and not handed over yet, ``nbytes`` what was; ``is_done`` tells that the
    source's end was passed on, ``is_blocked`` that the sink takes nothing at present. `take` and `deliver` raise
    `OSError` when a side is gone.
    """

    def __init__(
        self,
        shape: LinkShape,
        source: socket.socket,
        sink: socket.socket,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self.sink, self._clock = source, sink, clock
        self._delay_s = shape.delay_s
        self._s_per_byte = 0.0 if shape.rate_mbps is None else 8e-6 / shape.rate_mbps
        self._read_nbytes = _READ_NBYTES if shape.rate_mbps is None else _PACED_NBYTES
        # (when it arrives, what); the last of all is empty, the source's end
        self._under_way: deque[tuple[float, memoryview]] = deque()
        self.under_way_nbytes = 0
        self._free_s = 0.0
        self._ended = self.is_done = self.is_blocked = False
        self.nbytes = 0

    @property
    def wants_bytes(self) -> bool:
        """Whether there is room for more, and more to come."""
        return not self._ended and self.under_way_nbytes < _MOST_UNDER_WAY_NBYTES

    @property
    def due_s(self) -> float | None:
        """When the next bytes arrive, None where none are under way."""
        return self._under_way[0][0] if self._under_way else None

    def take(self) -> None:
        """Send what the source has handed over: the link is busy with it for as long as its rate says."""
        data = self.source.recv(self._read_nbytes)
        self._free_s = max(self._free_s, self._clock()) + len(data) * self._s_per_byte
        self._under_way.append((self._free_s + self._delay_s, memoryview(data)))
        self.under_way_nbytes += len(data)
        self._ended = not data

    def deliver(self, *, unblocked: bool = False) -> None:
        """Hand over what has arrived, as far as the sink takes it; a blocked one is asked only if ``unblocked``."""
        if self.is_blocked and not unblocked:
            return
        self.is_blocked = False
        while self._under_way and self._under_way[0][0] <= self._clock():
            due_s, data = self._under_way.popleft()
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
                self.is_done = True
                return
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.nbytes += sent
            self.under_way_nbytes -= sent
            if sent < len(data):
                self._under_way.appendleft((due_s, data[sent:]))
                self.is_blocked = True
                return
