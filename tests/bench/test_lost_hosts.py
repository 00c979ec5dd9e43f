"""A ring that loses hosts in the middle of a benchmark: no figure is of two rings, or of the time a new one took."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from cluster_rings import ring, wait_until_gone
from demo import demo

from skulk_core.bench.arms import CaseRun
from skulk_core.bench.instruments import RingInstruments
from skulk_core.bench.measure import Bench, Measurement, measure
from skulk_core.bench.prompts import encode, named_set
from skulk_core.bench.tables import notes
from skulk_core.bench.workload import ArmSpec, Workload
from skulk_core.cluster.engine import ClusterEngine
from skulk_core.cluster.peers import Host
from skulk_core.cluster.transport import StartedProcess, start
from skulk_core.decode.session import Session
from skulk_core.errors import PeerUnreachable, RingChanged
from skulk_core.sampling.settings import SamplingSettings


@dataclass
class Killing:
    """A watch that kills the first rank's worker when the parts are measured, and after the texts of ``after``."""

    engine: ClusterEngine
    after: Sequence[int]
    steps: int = 0
    kill_at_step: int | None = None
    for_good: set[str] = field(default_factory=set)
    stays_away: bool = False

    def check(self) -> None:
        return

    def step(self, description: str) -> None:
        self.steps += 1
        if self.steps == self.kill_at_step:
            self._kill()

    def texts(self, case: CaseRun) -> None:
        if case.num_done in self.after:
            self._kill()

    def replayed(self, done: int, total: int) -> None:
        return

    def _kill(self) -> None:
        pid = self.engine.epoch.pids[0]
        assert pid is not None
        if self.stays_away:
            self.for_good.add(self.engine.epoch.hosts[0])
        gone = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert wait_until_gone([gone])
        os.close(gone)


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[ClusterEngine, set[str]]]:
    """A ring of two whose first host can be made unreachable; the second of these tests leaves it so."""
    dead: set[str] = set()

    def starting(host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> StartedProcess:
        if host.name in dead:
            raise PeerUnreachable(host.name, "no answer")
        return start(host, arguments, environment)

    with ring("demo", (0, 4, 8), starter=starting) as engine:
        yield engine, dead


def measurement() -> Measurement:
    fed, described = encode(Session(demo(), None), named_set("docs"), raw=True, context=None)
    work = Workload("docs", fed[:1], described, 8, 2, SamplingSettings())
    return Measurement.of(work, [ArmSpec.fixed(0), ArmSpec.fixed(2)])


def test_what_a_lost_host_disturbed_is_measured_again(
    two: tuple[ClusterEngine, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seconds that a new ring takes would be called decoding."""
    engine, _ = two
    texts: list[tuple[int, int]] = []
    prefill = engine.prefill

    def noting(prompt: Sequence[int], depth: Any, *args: Any, **options: Any) -> int:
        first = prefill(prompt, depth, *args, **options)
        texts.append((depth, engine.stats.recoveries))
        return first

    monkeypatch.setattr(engine, "prefill", noting)
    found = measurement()
    # while the parts are measured, and between the first arm's text and the second's
    watch = Killing(engine, after=[3], kill_at_step=1)
    measure(Bench(engine, RingInstruments(engine), profile=False), found, watch)
    warm, again = [(0, 0), (2, 0)], [(2, 1), (0, 0), (2, 0), (2, 0)]
    assert texts == [*warm, (0, 0), *again, (0, 0), (2, 0)]
    case = found.record()
    assert [len(arm.samples) for arm in case.arms] == [2, 2]
    assert case.arms[1].counts is not None
    assert case.arms[1].counts.tokens == 14
    assert all(arm.same_as_reference for arm in case.arms)
    assert case.losses == 2
    assert "A host was lost and came back 2 times" in " ".join(notes(case))
    assert case.costs is not None


def test_another_ring_is_not_measured_on(two: tuple[ClusterEngine, set[str]]) -> None:
    """Half the figures of a receipt would be of one host, under the name of two; or all would be lost."""
    engine, dead = two
    found = measurement()
    with pytest.raises(RingChanged) as raised:
        measure(
            Bench(engine, RingInstruments(engine), profile=False),
            found,
            Killing(engine, after=[4], for_good=dead, stays_away=True),
        )
    assert (raised.value.before, raised.value.after) == (2, 1)
    case = found.record()
    assert [len(arm.samples) for arm in case.arms] == [1, 1]
    assert case.costs is None
