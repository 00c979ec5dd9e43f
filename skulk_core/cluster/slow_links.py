"""Links that are slower than the real ones: between neighbours of a ring stands a proxy that forwards every byte later.

A rank calls the next one; it is given the proxy's address in its place. Each direction of each connection is a delay
line: what comes in goes out so much later, behind what came before it and no faster than the rate, however much is
under way. It is an ideal link otherwise: nothing is lost, and no window limits what may be under way.

The proxy is one thread of the process that makes it, which sleeps between bytes: it holds the sockets, so that they end
with it.
"""

import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from skulk_core.cluster.delay_line import DelayLine, LinkShape
from skulk_core.errors import RingError

# A neighbour that does not listen yet is called again so soon.
_CALL_AGAIN_S = 0.02
_CONNECT_S = 5.0
_LOOPBACK = "127.0.0.1"


class SlowLinks:
    """A proxy for each of ``targets``, `ip:port`; `addresses` are to be called in their place. Made running.

    ``forwarded_nbytes`` counts what was delivered on all links. Raises `RingError` if no port can be opened.
    """

    def __init__(self, shape: LinkShape, targets: Sequence[str]) -> None:
        self._shape = shape
        self._listeners: dict[socket.socket, tuple[str, int]] = {}
        self._calls: list[_Call] = []
        self._connections: list[_Connection] = []
        self._ended_nbytes = 0
        try:
            for target in targets:
                address, _, port = target.rpartition(":")
                self._listeners[socket.create_server((_LOOPBACK, 0))] = (address, int(port))
        except OSError as error:
            self._close_sockets()
            raise RingError(f"no port can be opened for a slower link: {error.strerror or error}") from error
        self.addresses = tuple(f"{_LOOPBACK}:{listener.getsockname()[1]}" for listener in self._listeners)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="slow links", daemon=True)
        self._thread.start()

    @property
    def forwarded_nbytes(self) -> int:
        """Bytes delivered so far."""
        return self._ended_nbytes + sum(one.nbytes for one in self._connections.copy())

    def close(self) -> None:
        """End every connection, and the thread; may be called again."""
        with suppress(OSError):
            self._wake.send(b"\0")
        self._thread.join()
        self._wake.close()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._close_sockets()
            self._woken.close()

    def _step(self) -> bool:
        """Wait for bytes or until some are due, and move them; False when it is to end."""
        lines = [line for connection in self._connections for line in connection.lines]
        readers: list[socket.socket] = [self._woken, *self._listeners]
        readers += [line.source for line in lines if line.wants_bytes]
        writers = [line.sink for line in lines if line.is_blocked]
        due = [line.due_s for line in lines if line.due_s is not None and not line.is_blocked]
        due += [call.next_s for call in self._calls]
        timeout_s = max(0.0, min(due) - time.monotonic()) if due else None
        # of the ways to wait only this one knows less than a millisecond
        readable, writable, _ = select.select(readers, writers, [], timeout_s)
        if self._woken in readable:
            return False
        for ready in readable:
            if ready in self._listeners:
                caller, _ = ready.accept()
                self._calls.append(_Call(caller, self._listeners[ready], time.monotonic()))
        self._call()
        for connection in self._connections.copy():
            if not connection.move(readable, writable):
                connection.close()
                self._ended_nbytes += connection.nbytes
                self._connections.remove(connection)
        return True

    def _call(self) -> None:
        """Connect those who called to whom they meant; whoever does not listen yet is called again."""
        for call in [call for call in self._calls if call.next_s <= time.monotonic()]:
            try:
                answered = socket.create_connection(call.target, _CONNECT_S)
            except OSError:
                call.next_s = time.monotonic() + _CALL_AGAIN_S
                continue
            self._calls.remove(call)
            self._connections.append(_Connection(self._shape, call.caller, answered))

    def _close_sockets(self) -> None:
        for listener in self._listeners:
            listener.close()
        for call in self._calls:
            call.caller.close()
        for connection in self._connections:
            connection.close()


@dataclass
class _Call:
    """Somebody whose neighbour was not reached yet."""

    caller: socket.socket
    target: tuple[str, int]
    next_s: float


class _Connection:
    """Two sockets and a delay line in each direction."""

    def __init__(self, shape: LinkShape, caller: socket.socket, answered: socket.socket) -> None:
        self._sockets = (caller, answered)
        for one in self._sockets:
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = (DelayLine(shape, caller, answered), DelayLine(shape, answered, caller))

    @property
    def nbytes(self) -> int:
        return sum(line.nbytes for line in self.lines)

    def move(self, readable: Sequence[socket.socket], writable: Sequence[socket.socket]) -> bool:
        """Take what came and deliver what is due; False when both ends are done, or one is lost."""
        try:
            for line in self.lines:
                if line.source in readable:
                    line.take()
                line.deliver(unblocked=line.sink in writable)
        except OSError:
            # one side is gone: the other learns it as it would from the side itself
            return False
        return not all(line.is_done for line in self.lines)

    def close(self) -> None:
        for one in self._sockets:
            one.close()
