"""Links that were cut while every process lives on: the ring's sockets are made to ask whether the other end is there.

A rank may compute for minutes or wait for minutes, so time alone says nothing of a link. The system of the other host
answers for a process that computes, and even for one that is stopped, which is told by its beats. No answer means no
link, in the middle of a text as at its beginning.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

# Together as long as a launcher that falls silent is waited for.
IDLE_S, INTERVAL_S, NUM_PROBES = 3, 1, 5
# Sent so often without an answer, after twice the time each: 6 s from a neighbour that answers in milliseconds.
_MOST_SENT_AGAIN = 5
_LOOK_AGAIN_S = 1.0
_SENT_AGAIN_AT, _INFO_NBYTES = 2, 8  # in Linux's `struct tcp_info`


def keep_asking(sockets: Sequence[int]) -> None:
    """Have reads of these TCP sockets fail once the other end has not answered for some seconds.

    It is asked where nothing is under way from this end. What is under way is the other end's to ask about, since the
    ring sends one way on each of its connections. Sums so large that they take both ways need `when_unanswered`.
    """
    # macOS has another name for it
    idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined,unused-ignore]
    for descriptor in sockets:
        with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            same.setsockopt(socket.IPPROTO_TCP, idle, IDLE_S)
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_S)
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, NUM_PROBES)


def is_unanswered(descriptor: int) -> bool:
    """Whether what was sent there was sent again and again, and not acknowledged. Linux only, else never.

    A neighbour that computes and has no room for more acknowledges that, and is not meant.
    """
    if sys.platform != "linux":
        return False
    try:
        with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as same:
            info = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_NBYTES)
    except OSError:
        # MLX has closed it, and tells why
        return False
    return info[_SENT_AGAIN_AT] >= _MOST_SENT_AGAIN


def when_unanswered(sockets: Sequence[int], act: Callable[[], None]) -> None:
    """Have ``act`` called, by a thread that looks once a second, when one of the sockets `is_unanswered`."""

    def look() -> None:
        while not any(map(is_unanswered, sockets)):
            time.sleep(_LOOK_AGAIN_S)
        act()

    if sockets:
        threading.Thread(target=look, name="unanswered", daemon=True).start()
