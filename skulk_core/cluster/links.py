"""A rank's two neighbours in the ring: what is sent to the next and received from the one before, counted."""

import os
import select
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any

import mlx.core as mx

# Of more than two ranks: beyond this the bytes of passing whole arrays round cost more than the hops of a sum.
_MOST_GATHERED_NBYTES = 16 << 10
_MOST_WAIT_US = 4000


class Links:
    """Messages between neighbours of one `mx.distributed` group; the last rank's next is the first.

    Sends and receives run on one stream in the order in which they are handed out. A ``patient`` rank waits for a
    message by sleeping until its first bytes are there; MLX's own ring spins, which would take a core from ranks
    that compute on the same machine.
    """

    def __init__(self, group: Any, sockets: list[int], *, patient: bool) -> None:
        self._group, self._sockets = group, sockets
        self.rank, self.size = group.rank(), group.size()
        self.next, self.before = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        self._patient = patient
        self._sent: mx.array | None = None
        self.messages = self.nbytes = 0

    def send(self, message: mx.array) -> None:
        """Hand ``message`` to the next rank as soon as it is computed; nothing is waited for."""
        self._sent = mx.distributed.send(message, self.next, group=self._group)
        mx.async_eval(self._sent)
        self.messages += 1
        self.nbytes += message.nbytes

    def receive(self, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """The next message of the rank before, not evaluated; all before it must have been handed out."""
        if self._patient:
            self.wait()
        message = mx.distributed.recv(shape, dtype, self.before, group=self._group)
        mx.async_eval(message)
        return message

    def add_up(self, share: mx.array) -> mx.array:
        """The sum of every rank's ``share``, on every rank; not evaluated.

        Ranks tell sums apart by their order alone. Each is handed out at once, so that the order is that of the calls
        and no part of a graph that happens not to be asked for, or to be asked for earlier, can change it.
        """
        # before it is handed out: when the sum is there, every rank has counted it
        self._count_sum(share.nbytes)
        return self._summed(share)

    def _summed(self, share: mx.array) -> mx.array:
        if self._gathers(share.nbytes):
            # half the hops of a ring's sum, and for two ranks the same bytes
            gathered = mx.distributed.all_gather(share, group=self._group)
            summed: mx.array = gathered.reshape(self.size, *share.shape).sum(axis=0)
        else:
            summed = mx.distributed.all_sum(share, group=self._group)
        mx.async_eval(summed)
        return summed

    def _gathers(self, nbytes: int) -> bool:
        return bool(self.size == 2) or nbytes <= _MOST_GATHERED_NBYTES

    def _count_sum(self, nbytes: int) -> None:
        others = self.size - 1
        self.messages += others if self._gathers(nbytes) else 2 * others
        self.nbytes += others * nbytes if self._gathers(nbytes) else 2 * others * nbytes // self.size

    def broadcast(self, message: mx.array) -> mx.array:
        """``message`` of the one rank that has any, on every rank; the others give zeros. Not evaluated."""
        return self.add_up(message)

    def hear(self, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """Wait for what another rank broadcasts, however long that takes; evaluated, and counted once it is there."""
        self.wait()
        message = self._summed(mx.zeros(shape, dtype))
        mx.eval(message)
        self._count_sum(message.nbytes)
        return message

    def sleep_while_adding(self) -> None:
        """Let a ``patient`` rank sleep inside sums too, where nothing of ours could wait for the others' first bytes.

        MLX asks its sockets without waiting, over and over. Made to wait they wake it at once when something comes; the
        limit is for sums so large that they use a socket both ways.
        """
        if not self._patient:
            return
        limit = struct.pack("@ll", 0, _MOST_WAIT_US)
        for descriptor in self._sockets:
            os.set_blocking(descriptor, True)
            with socket.socket(fileno=os.dup(descriptor)) as same:
                for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                    same.setsockopt(socket.SOL_SOCKET, option, limit)

    def finish_sending(self) -> None:
        """Wait until what was handed to `send` is on its way, and with it all that it was computed from."""
        if self._sent is not None:
            mx.eval(self._sent)
            self._sent = None

    def wait(self) -> None:
        """Sleep until a neighbour has sent something, or has gone."""
        if not self._sockets:
            return
        poll = select.poll()
        for descriptor in self._sockets:
            poll.register(descriptor, select.POLLIN)
        poll.poll()


def with_new_sockets(connect: Callable[[], Any]) -> tuple[Any, list[int]]:
    """What ``connect`` returns, and the sockets of this process that it opened."""
    before = _sockets()
    made = connect()
    return made, sorted(_sockets() - before)


def _sockets() -> set[int]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = set()
    for name in os.listdir(folder):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
        except OSError:
            continue  # the folder's own descriptor, which is closed again
    return found
