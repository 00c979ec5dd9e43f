"""From hosts and a model to a plan: who holds what, at which address, and why. Nothing is loaded."""

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from skulk_core.cluster.addresses import Pins, RankAddress, choose_addresses
from skulk_core.cluster.assignment import Shard
from skulk_core.cluster.peers import Host
from skulk_core.cluster.report import HostReport, fetch_reports
from skulk_core.errors import DuplicateHost, HostMismatch, PeerError, PlanDoesNotFit, ShareError, SplitError
from skulk_core.memory.placement import Capacity, ModelBytes, PlacedStage, place_pipeline, place_tensor

# Arithmetic and protocol: ranks that differ in them could disagree, or not understand each other.
SAME_VERSIONS = ("skulk-mtp", "mlx", "mlx-lm")
# Speeds nearer to each other than this are noise of the measurement.
_SAME_SPEED = 0.2


@dataclass(frozen=True)
class Plan:
    """Every rank's host, part and address, in the order of the ranks."""

    shard: Shard
    hosts: tuple[Host, ...]
    reports: tuple[HostReport, ...]
    capacities: tuple[Capacity, ...]
    stages: tuple[PlacedStage, ...]
    addresses: tuple[RankAddress, ...]

    @property
    def edges(self) -> tuple[int, ...]:
        """Where the stages of a pipeline begin, and where the last ends."""
        return (*(stage.layers.start for stage in self.stages), self.stages[-1].layers.end)


@dataclass(frozen=True)
class Wishes:
    """What the command line says about a plan."""

    shard: Shard = Shard.PIPELINE
    split: tuple[int, ...] | None = None
    pins: Pins = Pins()
    allow_public: bool = False


class Planner:
    """Plans for the hosts that are left, from what all of them said before the first epoch."""

    def __init__(self, model: ModelBytes, hosts: Sequence[Host], reports: Sequence[HostReport], wishes: Wishes) -> None:
        self._model, self._wishes, self._num_hosts = model, wishes, len(hosts)
        self._reports = {host.name: report for host, report in zip(hosts, reports, strict=True)}
        self._cut: set[tuple[str, str]] = set()

    def avoid(self, caller: str, address: str) -> None:
        """Plan without the link by which ``caller`` connects to ``address`` wherever there is another."""
        self._cut.add((caller, address))

    def plan(self, hosts: Sequence[Host]) -> Plan:
        """The plan for ``hosts``; a split that was asked for holds for all of them only. Raises as `make_plan`."""
        is_whole = len(hosts) == self._num_hosts
        wishes = self._wishes if is_whole else replace(self._wishes, split=None)
        reports = [self._reports[host.name] for host in hosts]
        try:
            return make_plan(self._model, hosts, reports, wishes, self._cut)
        except (ShareError, PlanDoesNotFit):
            if is_whole or wishes.shard is Shard.PIPELINE:
                raise
        # a text that has begun goes on, in whatever way those who are left can
        return make_plan(self._model, hosts, reports, replace(wishes, shard=Shard.PIPELINE), self._cut)


def ask_hosts(hosts: Sequence[Host], model: str | None = None) -> tuple[HostReport, ...]:
    """The reports of ``hosts``, speeds measured. Raises the first `PeerError`, `DuplicateHost`, `HostMismatch`."""
    reports = []
    # processes of one machine are as fast as each other
    for answer in fetch_reports(hosts, model, measure=not all(host.is_local for host in hosts)):
        if isinstance(answer, PeerError):
            raise answer
        reports.append(answer)
    check_hosts(hosts, reports)
    return tuple(reports)


def check_hosts(hosts: Sequence[Host], reports: Sequence[HostReport]) -> None:
    """Raise `DuplicateHost` for one machine under two names, `HostMismatch` for other versions than the last rank's."""
    seen: dict[str, Host] = {}
    for host, report in zip(hosts, reports, strict=True):
        first = seen.setdefault(report.machine, host)
        if first is not host and not (first.is_local and host.is_local):
            raise DuplicateHost(host.name, first.name)
        for package in SAME_VERSIONS:
            theirs, ours = report.versions.get(package), reports[-1].versions.get(package)
            if theirs != ours:
                what = f"the version of {package}"
                raise HostMismatch(host.name, what, theirs or "none", ours or "none", hosts[-1].name)


def in_rank_order(hosts: Sequence[Host], shard: Shard) -> list[Host]:
    """As listed; where the first rank decides, this machine comes first: its files are meant by `--sidecar FOLDER`."""
    return sorted(hosts, key=lambda host: not host.is_local) if shard is Shard.TENSOR else list(hosts)


def make_plan(
    model: ModelBytes,
    hosts: Sequence[Host],
    reports: Sequence[HostReport],
    wishes: Wishes,
    cut: Collection[tuple[str, str]] = (),
) -> Plan:
    """Place ``model`` on ``hosts``, of which ``reports`` speak in turn; ``cut`` as for `choose_addresses`.

    Raises `SplitError`, `ShareError`, `PlanDoesNotFit`, `LinkError`, `PublicLink`.
    """
    said = {host.name: report for host, report in zip(hosts, reports, strict=True)}
    hosts = in_rank_order(hosts, wishes.shard)
    reports = [said[host.name] for host in hosts]
    found = capacities(hosts, reports)
    if wishes.shard is Shard.TENSOR:
        if wishes.split is not None:
            raise SplitError("--split divides layers, and with --shard tensor every host has a share of each")
        stages = place_tensor(model, found)
    else:
        stages = place_pipeline(model, found, wishes.split)
    addresses = choose_addresses(hosts, reports, wishes.pins, allow_public=wishes.allow_public, cut=cut)
    return Plan(wishes.shard, tuple(hosts), tuple(reports), found, stages, addresses)


def capacities(hosts: Sequence[Host], reports: Sequence[HostReport]) -> tuple[Capacity, ...]:
    """What every rank may use. Ranks of one memory share it; hosts of one kind, or of nearly one speed, count alike."""
    speeds = _speeds(hosts, reports)
    sharing = [sum(other.memory == report.memory for other in reports) for report in reports]
    return tuple(
        Capacity(
            host.name,
            min(report.available_nbytes // ranks, host.memory_nbytes or report.available_nbytes),
            speed,
        )
        for host, report, speed, ranks in zip(hosts, reports, speeds, sharing, strict=True)
    )


def _speeds(hosts: Sequence[Host], reports: Sequence[HostReport]) -> list[float]:
    """Relative to each other: as hosts.yaml says, where it says it of any of them, else as measured."""
    if any(host.speed is not None for host in hosts):
        return [host.speed or 1.0 for host in hosts]
    kinds: dict[tuple[str, str, int], list[float]] = {}
    for report in reports:
        kinds.setdefault(_kind(report), []).append(report.nbytes_per_s or 0.0)
    measured = [statistics.median(kinds[_kind(report)]) for report in reports]
    least = min(measured)
    if not least:
        return [1.0] * len(hosts)
    speeds = [speed / least for speed in measured]
    return [1.0 if speed < 1 + _SAME_SPEED else round(speed, 1) for speed in speeds]


def _kind(report: HostReport) -> tuple[str, str, int]:
    return report.backend, report.device, report.total_nbytes
