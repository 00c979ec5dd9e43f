"""Links that were cut while every process lives on: the ring's sockets are made to ask whether the other end is there.

A rank may compute for minutes or wait for minutes, so time alone says nothing of a link. The system of the other host
answers for a process that computes, and even for one that is stopped, which is told by its beats. No answer means no
link, in the middle of a text as at its beginning.
"""

import socket
from collections.abc import Sequence

# Together as long as a launcher that falls silent is waited for.
IDLE_S, INTERVAL_S, NUM_PROBES = 3, 1, 5


def keep_asking(sockets: Sequence[int]) -> None:
    """Have reads of these TCP sockets fail once the other end has not answered for some seconds.

    It is asked where nothing is under way from this end. What is under way is the other end's to ask about: the ring
    sends one way on each of its connections, but for sums so large that they take both.
    """
    # macOS has another name for it
    idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined,unused-ignore]
    for descriptor in sockets:
        with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            same.setsockopt(socket.IPPROTO_TCP, idle, IDLE_S)
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_S)
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, NUM_PROBES)
