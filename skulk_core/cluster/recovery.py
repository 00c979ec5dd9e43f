"""What to do after a failure: the same hosts again, fewer of them, or nothing any more.

A host whose worker was lost is tried once more, since a killed process, a stopped one or a torn connection leaves a
host that works; if it fails again before anything was decoded, it is left out. One that does not answer ssh at all is
left out at once, unless the others cannot hold the model. A broken ring is nobody's fault: the next epoch's workers
find out which neighbours do not reach each other. What fails alike again and again is no accident, whatever was decoded
between. An end comes with the evidence of each failure.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from skulk_core.cluster.epoch import Member
from skulk_core.cluster.peers import Host
from skulk_core.errors import ClusterLost, LinkCut, LoginRefused, PeerError, PeerUnreachable, SkulkError

# Ranks, layers and addresses for an epoch on these hosts. Raises `SkulkError` if the model does not fit them.
Place = Callable[[int, Sequence[Host]], Sequence[Member]]
# Is told that the first host could not connect to an address of the second: another link is to be preferred.
Avoid = Callable[[str, str], None]

# Of one host, or of the ring where no host is at fault, without anything decoded between.
_MOST_IN_A_ROW = 3
_MOST_IN_WINDOW, _WINDOW_S = 12, 120.0
# The same of one host; of the ring twice as many.
_MOST_ALIKE, _ALIKE_S = 5, 1800.0
# An sshd that is starting, or has too many logins at once, takes the next one.
_LOGIN_AGAIN_S = 2.0
_FIGURES = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Failure:
    """One epoch's end. ``host`` is empty where none is at fault."""

    epoch: int
    host: str
    message: str
    at_s: float

    def __str__(self) -> str:
        return f"epoch {self.epoch}: {self.message}"

    def is_like(self, other: "Failure") -> bool:
        """Whether the same happened, but for seconds and process ids."""
        return self.host == other.host and _FIGURES.sub("", self.message) == _FIGURES.sub("", other.message)


class Recovery:
    """Hosts in use and failures so far; `next_members` is asked for every epoch. Waits for nothing itself."""

    def __init__(
        self,
        hosts: Sequence[Host],
        place: Place,
        avoid: Avoid = lambda caller, address: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hosts = list(hosts)
        self.failures: list[Failure] = []
        self._all, self._place, self._avoid, self._clock = tuple(hosts), place, avoid, clock
        self._epoch, self._takes_over = 0, False
        self._in_a_row: Counter[str] = Counter()
        self._left_out: list[Host] = []
        self._took_back = False

    def next_members(self) -> Sequence[Member]:
        """Ranks of the next epoch. Raises `ClusterLost`, and what placing raises."""
        self._epoch += 1
        try:
            members = self._placed()
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
        return [_without_need(member) for member in members] if self._takes_over else members

    def _placed(self) -> Sequence[Member]:
        try:
            return self._place(self._epoch, self.hosts)
        except PeerError:
            raise
        except SkulkError:
            if not self._left_out or self._took_back:
                raise
        # it was left out on the first word of ssh, and without it there is no way on
        back, self._took_back = self._left_out.pop(), True
        self.hosts = [host for host in self._all if host in self.hosts or host is back]
        return self._place(self._epoch, self.hosts)

    def formed(self) -> None:
        """An epoch works: what the command line asks of a decider was there, and a later one may do without."""
        self._takes_over = True

    def progressed(self) -> None:
        """Something was decoded: whatever failed before has been overcome."""
        self._in_a_row.clear()
        self._took_back = False

    def failed(self, error: SkulkError, *, leave_out: bool = True) -> float:
        """An epoch ended with ``error``. Seconds to wait before the next. Raises `ClusterLost`.

        ``leave_out``: whether a host that keeps failing may be done without, which nobody asked for before the first
        token.
        """
        now_s, host = self._clock(), getattr(error, "host", "")
        failure = Failure(self._epoch, host, str(error), now_s)
        self.failures.append(failure)
        said = list(map(str, self.failures))
        in_window = sum(now_s - one.at_s < _WINDOW_S for one in self.failures)
        if in_window > _MOST_IN_WINDOW:
            raise ClusterLost(f"{in_window} failures within {_WINDOW_S:.0f} s", said[-in_window:]) from error
        if isinstance(error, LinkCut):
            for cut in error.cuts:
                self._avoid(cut.caller, cut.address)
        self._in_a_row[host] += 1
        alike = [one for one in self.failures if now_s - one.at_s < _ALIKE_S and one.is_like(failure)]
        is_gone = isinstance(error, PeerUnreachable) and not error.answered
        if host and leave_out and (is_gone or self._in_a_row[host] > 1 or len(alike) >= _MOST_ALIKE):
            self._leave_out(host, error)
        elif self._in_a_row[host] >= _MOST_IN_A_ROW:
            raise ClusterLost(f"{self._in_a_row[host]} failures in a row, and nothing decoded between", said) from error
        elif len(alike) >= 2 * _MOST_ALIKE:
            reason = f"the same failure {len(alike)} times, whatever was decoded between"
            raise ClusterLost(reason, list(map(str, alike))) from error
        return _LOGIN_AGAIN_S if isinstance(error, PeerUnreachable | LoginRefused) and not is_gone else 0.0

    def _leave_out(self, name: str, error: SkulkError) -> None:
        gone = [host for host in self.hosts if host.name == name]
        left = [host for host in self.hosts if host.name != name]
        if not left:
            raise ClusterLost("no host is left", list(map(str, self.failures))) from error
        self.hosts = left
        self._left_out += gone


def _without_need(member: Member) -> Member:
    """Of a later epoch: its decider may be another host, which lacks the head, and the text is the same without."""
    drafting = replace(member.assignment.drafting, needed=False, allow_plain=True)
    return replace(member, assignment=replace(member.assignment, drafting=drafting))
