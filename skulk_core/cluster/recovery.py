"""What to do after a failure: the same hosts again, fewer of them, or nothing any more.

A host whose worker was lost is tried once more, since a killed process, a stopped one or a torn connection leaves a
host that works. If it cannot be started, or fails again before anything was decoded, it is left out. Failures that
follow one another without progress end the run with the evidence of each.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skulk_core.cluster.epoch import Member
from skulk_core.cluster.peers import Host
from skulk_core.errors import ClusterLost, PeerError, SkulkError

# Ranks, layers and addresses for an epoch on these hosts. Raises `SkulkError` if the model does not fit them.
Place = Callable[[int, Sequence[Host]], Sequence[Member]]

_MOST_IN_A_ROW = 3
_MOST_IN_WINDOW, _WINDOW_S = 12, 120.0


@dataclass(frozen=True)
class Failure:
    """One epoch's end. ``host`` is empty where none is at fault."""

    epoch: int
    host: str
    message: str
    at_s: float

    def __str__(self) -> str:
        return f"epoch {self.epoch}: {self.message}"


class Recovery:
    """Hosts in use and failures so far; `next_members` is asked for every epoch."""

    def __init__(self, hosts: Sequence[Host], place: Place) -> None:
        self.hosts = list(hosts)
        self.failures: list[Failure] = []
        self._place, self._epoch, self._in_a_row = place, 0, 0
        self._suspects: set[str] = set()

    def next_members(self) -> Sequence[Member]:
        """Ranks of the next epoch. Raises `ClusterLost`, and what placing raises."""
        self._epoch += 1
        try:
            return self._place(self._epoch, self.hosts)
        except PeerError:
            # a host that cannot be reached: it is tried again, then left out
            raise
        except SkulkError as error:
            if not self.failures:
                raise
            left = ", ".join(host.name for host in self.hosts)
            raise ClusterLost(
                f"the hosts that are left ({left}) cannot take over: {error}", list(map(str, self.failures))
            ) from error

    def progressed(self) -> None:
        """Something was decoded: whatever failed before has been overcome."""
        self._in_a_row = 0
        self._suspects.clear()

    def failed(self, error: SkulkError, *, leave_out: bool = True) -> None:
        """An epoch ended with ``error``. Raises `ClusterLost`.

        ``leave_out``: whether a host that keeps failing may be done without, which nobody asked for before the first
        token.
        """
        now_s, host = time.monotonic(), getattr(error, "host", "")
        self.failures.append(Failure(self._epoch, host, str(error), now_s))
        self._in_a_row += 1
        in_window = sum(now_s - failure.at_s < _WINDOW_S for failure in self.failures)
        said = list(map(str, self.failures))
        if in_window > _MOST_IN_WINDOW:
            raise ClusterLost(f"{in_window} failures within {_WINDOW_S:.0f} s", said[-in_window:]) from error
        if host in self._suspects and leave_out:
            self._leave_out(host, error)
        elif host:
            self._suspects.add(host)
        if self._in_a_row >= _MOST_IN_A_ROW:
            raise ClusterLost(f"{self._in_a_row} failures in a row, and nothing decoded between", said) from error

    def _leave_out(self, name: str, error: SkulkError) -> None:
        left = [host for host in self.hosts if host.name != name]
        if not left:
            raise ClusterLost("no host is left", list(map(str, self.failures))) from error
        self.hosts, self._in_a_row = left, 0
