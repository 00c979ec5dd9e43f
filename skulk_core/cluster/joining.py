"""Forming the ring from a worker: MLX reads where its neighbours are from environment variables and from files.

The files are pipes, so that nothing is left on a disk whatever ends the process.
"""

import os
import re
import signal
import socket
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from skulk_core.cluster.links import with_new_sockets
from skulk_core.errors import RingError

# Neighbours have loaded by then. More than the launcher waits, which says what it was before anybody is ended.
_JOIN_S = 45
# MLX's words, with the number of the system's error.
_UNBOUND = re.compile(r"Couldn't bind socket \(error: (\d+)\)")


class Reserved:
    """A port that is ours until the ring takes it, and one beside it where neighbours may try whether they reach us.

    The first must not be listened at: whoever called early for the ring would be connected to nobody.
    """

    def __init__(self, address: str) -> None:
        self._kept = _bound(address)
        try:
            self._tried = _bound(address)
        except RingError:
            self._kept.close()
            raise
        self._tried.listen()
        self.address, self.port = address, int(self._kept.getsockname()[1])
        self.tried_port = int(self._tried.getsockname()[1])

    def release(self) -> None:
        """Let it be bound; nobody tries any more."""
        self._kept.close()
        self._tried.close()


def _bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # MLX binds with it too: a port that an earlier ring used may still wait for stray packets
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, 0))
    except OSError as error:
        made.close()
        raise RingError(f"{address} cannot be used here: {error.strerror or error}") from error
    return made


def join(backend: str, settings: Mapping[str, str], files: Mapping[str, str], address: str) -> tuple[Any, list[int]]:
    """The group, and its sockets. ``settings`` are environment variables; ``files`` those that name a file, by content.

    ``address`` is where this rank will listen, `ip:port`: MLX does not say it of one that it cannot have.

    Raises `RingError`. MLX holds the interpreter while it waits for neighbours, so that no thread of ours can end the
    process then; where they never come, a signal does.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_JOIN_S)
    opened = []
    for name, content in files.items():
        reader, writer = os.pipe()
        # far less than a pipe holds
        os.write(writer, content.encode())
        os.close(writer)
        opened.append(reader)
        os.environ[name] = f"/dev/fd/{reader}"
    os.environ.update(settings)
    try:
        return with_new_sockets(lambda: mx.distributed.init(strict=True, backend=backend))
    except (RuntimeError, ValueError) as error:
        if unbound := _UNBOUND.search(str(error)):
            raise RingError(f"{address} cannot be listened at: {os.strerror(int(unbound[1]))}") from error
        raise RingError(f"no {backend} group: {error}") from error
    finally:
        signal.alarm(0)
        for reader in opened:
            os.close(reader)
