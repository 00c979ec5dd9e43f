"""Forming the ring from a worker: MLX reads where its neighbours are from environment variables and from files.

The files are pipes, so that nothing is left on a disk whatever ends the process.
"""

import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from skulk_core.cluster.links import with_new_sockets
from skulk_core.errors import RingError

# Neighbours have loaded by then. Less than the launcher waits, which so learns who failed.
_JOIN_S = 45


class Reserved:
    """A port that is ours until the ring takes it."""

    def __init__(self, address: str, port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            # MLX binds with it too: a port that an earlier ring used may still wait for stray packets
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((address, port))
        except OSError as error:
            self._socket.close()
            raise RingError(
                f"{address}, port {port or 'any'}, cannot be used here: {error.strerror or error}"
            ) from error
        self.address, self.port = address, int(self._socket.getsockname()[1])

    def release(self) -> None:
        """Let it be bound."""
        self._socket.close()


def join(backend: str, settings: Mapping[str, str], files: Mapping[str, str]) -> tuple[Any, list[int]]:
    """The group, and its sockets. ``settings`` are environment variables; ``files`` those that name a file, by content.

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
        raise RingError(f"no {backend} group: {error}") from error
    finally:
        signal.alarm(0)
        for reader in opened:
            os.close(reader)
