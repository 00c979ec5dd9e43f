"""Errors of several hosts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skulk_core.errors.base import SkulkError


class ClusterError(SkulkError):
    """Something about several hosts. `host` is the one at fault, empty where none is."""

    def __init__(self, host: str, reason: str) -> None:
        self.host, self.reason = host, reason
        super().__init__(f"{host}: {reason}" if host else reason)


class HostMismatch(ClusterError):
    """A host is not what the others are: `what` differs, `theirs` against `ours`."""

    def __init__(self, host: str, what: str, theirs: str, ours: str, of: str) -> None:
        self.what, self.theirs, self.ours = what, theirs, ours
        super().__init__(host, f"{what} is {theirs}, on {of} it is {ours}")


class WorkerFailed(ClusterError):
    """A worker ended, said that it cannot work, or fell silent.

    `said` is the last it wrote, `error` the name of the type of the error it told of; each empty if there is none.
    `fields` are that error's own, as far as they are texts.
    """

    def __init__(
        self, host: str, reason: str, said: str = "", error: str = "", fields: Mapping[str, str] | None = None
    ) -> None:
        self.said, self.error, self.fields = said, error, dict(fields or {})
        super().__init__(host, reason + (f"; it wrote: {said}" if said else ""))


class RingError(ClusterError):
    """The ranks of a ring do not agree, or one of them was lost."""

    def __init__(self, reason: str) -> None:
        super().__init__("", reason)


@dataclass(frozen=True)
class Cut:
    """`caller` cannot connect to `host` at `address`, an IP address without a port."""

    caller: str
    host: str
    address: str
    reason: str

    def __str__(self) -> str:
        return f"{self.caller} cannot connect to {self.host} at {self.address} ({self.reason})"


class LinkCut(ClusterError):
    """Neighbours of the ring do not reach each other, though every host is reached from here.

    `host` is the one that could be done without so that the others reach each other.
    """

    def __init__(self, host: str, cuts: Sequence[Cut]) -> None:
        self.cuts = tuple(cuts)
        super().__init__(host, f"the ring's link is cut: {', '.join(map(str, cuts))}")


class ClusterLost(ClusterError):
    """The hosts failed too often, or none is left. `failures` tells of each failure, in order."""

    def __init__(self, reason: str, failures: Sequence[str]) -> None:
        self.failures = tuple(failures)
        super().__init__("", "; ".join([reason, *failures]))


class RingChanged(ClusterError):
    """Hosts were lost for good in the middle of a measurement: `before` and `after` are numbers of ranks."""

    def __init__(self, before: int, after: int) -> None:
        self.before, self.after = before, after
        super().__init__("", f"the ring is another one, of {after} instead of {before} hosts: it is not measured on")


class PeerError(ClusterError):
    """Another host, or a process of ours there, cannot be used. `host` is its name on the command line."""


class SshFailed(PeerError):
    """Ssh did not get us there. `login` is what follows `ssh` on a command line that tries it by hand."""

    def __init__(self, host: str, reason: str, login: str = "") -> None:
        self.login = login or host
        super().__init__(host, reason)


class PeerUnreachable(SshFailed):
    """No connection by ssh: no such name, no route, nobody listens, no answer in time.

    `answered`: whether something is there that refused, and may not the next time.
    """

    def __init__(self, host: str, reason: str, login: str = "", *, answered: bool = False) -> None:
        self.answered = answered
        super().__init__(host, reason, login)


class HostKeyRefused(SshFailed):
    """Ssh does not know the host's key, or knows another one."""


class LoginRefused(SshFailed):
    """The host lets nobody in with the keys that ssh offers."""


class SkulkMissing(PeerError):
    """The command that starts `skulk` on the host is not there, cannot be run, or is another program."""

    def __init__(self, host: str, command: str, reason: str) -> None:
        self.command = command
        super().__init__(host, reason)


class DuplicateHost(PeerError):
    """Two ranks were asked for on one machine under two names. `other` is the name it was given first."""

    def __init__(self, host: str, other: str) -> None:
        self.other = other
        super().__init__(host, f"is the same machine as {other}")


class LinkError(PeerError):
    """No address of the host can be used for the ring's traffic."""


class PublicLink(LinkError):
    """The only usable address is a public one."""

    def __init__(self, host: str, address: str) -> None:
        self.address = address
        super().__init__(
            host, f"{address} is a public address, and the ring's traffic knows no login and no encryption"
        )


class RdmaMissing(LinkError):
    """Nothing says which RDMA device of the host leads to `neighbour`."""

    def __init__(self, host: str, neighbour: str) -> None:
        self.neighbour = neighbour
        super().__init__(host, f"hosts.yaml names no `rdma` device towards {neighbour}")


class SplitError(SkulkError):
    """The layers cannot be divided among the hosts as asked."""


class ShareError(SplitError):
    """Ranks cannot have equal tensor-parallel shares of a model of `model_type`."""

    def __init__(self, model_type: str, reason: str) -> None:
        self.model_type = model_type
        super().__init__(reason)


class TooManyHosts(SplitError):
    """`num_hosts` ranks were asked for, and the model's layers make `most` stages."""

    def __init__(self, num_hosts: int, most: int, why: str) -> None:
        self.num_hosts, self.most = num_hosts, most
        stages = f"{most} stage{'s' if most > 1 else ''}"
        super().__init__(f"{num_hosts} hosts for a model that makes at most {stages} ({why})")


class PlanDoesNotFit(SkulkError):
    """Some host cannot hold its part. Each of `rows` is (host, bytes needed, bytes available, bytes short by)."""

    def __init__(self, rows: Sequence[tuple[str, int, int, int]], reason: str = "the model does not fit") -> None:
        self.rows, self.reason = tuple(rows), reason
        table = "; ".join(
            f"{host} needs {needed / 1e9:,.2f} GB, has {available / 1e9:,.2f} GB"
            + (f", short by {short / 1e9:,.2f} GB" if short else "")
            for host, needed, available, short in rows
        )
        super().__init__(f"{reason}: {table}")
