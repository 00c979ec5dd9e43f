"""What Linux says of processes that a test started, and of the TCP ports (IPv4) that they listen at."""

import os
from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Processes that ``pid`` started and that still run."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # of a thread that ended meanwhile
            found += map(int, file.read_text().split())
    return sorted(found)


def sockets(pid: int) -> set[str]:
    """Inodes of the sockets of a process; none of one that ended."""
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                name = os.readlink(link)
                if name.startswith("socket:["):
                    found.add(name[len("socket:[") : -1])
    return found


def listeners() -> dict[int, str]:
    """Inodes of this machine's sockets that listen, by port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16): row[9] for row in rows if row[3] == "0A"}


def listening(pid: int) -> set[int]:
    """Ports that ``pid`` listens at."""
    own = sockets(pid)
    return {port for port, inode in listeners().items() if inode in own}
