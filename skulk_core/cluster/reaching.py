"""Whether neighbours reach each other, found out before MLX is told to connect: it would wait, and say nothing.

Every rank listens at the address that it has kept for the ring, and calls the next one's once. It takes no more than
some seconds and goes on while weights are read.
"""

import socket
import struct
from collections import Counter
from collections.abc import Collection, Sequence

from skulk_core.errors import Cut

_CONNECT_S = 5.0
# Close without a trace: no port on this side is kept for stray packets.
_NO_LINGER = struct.pack("ii", 1, 0)


def why_unreached(address: str) -> str:
    """Why nobody can be connected to at ``address``, `ip:port`; empty if somebody can."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _CONNECT_S) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except TimeoutError:
        return f"no answer within {_CONNECT_S:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def most_cut_off(cuts: Sequence[Cut], ranks: Sequence[str], kept: Collection[str]) -> str:
    """Whom the others could best do without: the host in most ``cuts``, of two alike the earlier of ``ranks``.

    Never one of ``kept``, those on the launcher's machine, which is the one that is certainly there: empty where all
    are.
    """
    ends = Counter(end for cut in cuts for end in (cut.caller, cut.host) if end not in kept)
    return max(ranks, key=lambda name: ends[name]) if ends else ""
