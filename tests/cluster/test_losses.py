"""Workers are killed, stopped and made to crash: the reader of the stream sees nothing of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from cli_checkpoints import DEMO_SIDECAR
from cluster_rings import PATIENCE_S, WITH_HEAD, Notes, answer, one_host, ring, wait_until_gone
from demo import demo, demo_head, prompts

from skulk_core.cluster import epoch
from skulk_core.cluster.assignment import Drafting
from skulk_core.cluster.frames import START_MARKER
from skulk_core.cluster.peers import Host
from skulk_core.cluster.transport import StartedProcess, own_command, start
from skulk_core.errors import ClusterLost, PeerUnreachable, RingError, WorkerFailed
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness

NUM_TOKENS = 60
GREEDY = SamplingSettings()
DRAWN = SamplingSettings(temperature=0.9, seed=11, presence_penalty=0.3)


def encoded(index: int) -> list[int]:
    tokens: list[int] = demo().tokenizer.encode(prompts()[index])
    return tokens


@cache
def expected(index: int, depth: int, sampling: SamplingSettings) -> list[int]:
    return one_host(demo().target, demo_head().head, encoded(index), depth, NUM_TOKENS, sampling)


class Cluster:
    """A ring of three whose hosts can be made unreachable."""

    def __init__(self) -> None:
        self.notes, self.dead = Notes(), set[str]()
        self.engine = ring("demo", (0, 2, 5, 8), notes=self.notes, starter=self._start, lease_s=3.0)

    def _start(self, host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> StartedProcess:
        if host.name in self.dead:
            raise PeerUnreachable(host.name, "no answer")
        return start(host, arguments, environment)

    def pid(self, rank: int) -> int:
        pid = self.engine.epoch.pids[rank]
        assert pid is not None
        return pid


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    with made.engine:
        yield made


def at_round(number: int, act: Callable[[], None]) -> Callable[[int], None]:
    def after_round(done: int) -> None:
        if done == number:
            act()

    return after_round


def test_a_killed_rank_costs_no_token(cluster: Cluster) -> None:
    """Any rank, the decider too: greedy text and drawn text go on where they were."""
    for turn, (rank, depth, sampling) in enumerate([(0, 3, GREEDY), (2, 2, DRAWN), (1, 0, DRAWN)]):
        told = len(cluster.notes.lines)
        gone = os.pidfd_open(cluster.pid(rank))
        kill = at_round(4, lambda rank=rank: os.kill(cluster.pid(rank), signal.SIGKILL))
        # long enough not to be decoded before the signal
        tokens = answer(cluster.engine, encoded(turn), depth, 300, sampling, after_round=kill)
        assert tokens == one_host(demo().target, demo_head().head, encoded(turn), depth, 300, sampling)
        assert wait_until_gone([gone])
        os.close(gone)
        stats = cluster.engine.stats
        assert stats.recoveries == 1
        lines = cluster.notes.lines[told:]
        assert len(lines) == stats.recoveries
        assert all(f"local#{rank + 1}" in line and "signal 9" in line and "none lost" in line for line in lines)


def test_a_stopped_rank_is_noticed(cluster: Cluster) -> None:
    """It holds its connections open for ever: without a deadline the reader would wait as long."""
    before = cluster.engine.epoch.number
    stop = at_round(1, lambda: os.kill(cluster.pid(0), signal.SIGSTOP))
    stopped = os.pidfd_open(cluster.pid(0))
    # long enough not to be decoded before the signal
    tokens = answer(cluster.engine, encoded(3), 0, 400, after_round=stop)
    assert tokens == one_host(demo().target, None, encoded(3), 0, 400)
    assert cluster.engine.epoch.number == before + 1
    assert wait_until_gone([stopped])
    os.close(stopped)


def test_a_rank_lost_while_the_prompt_is_read(cluster: Cluster) -> None:
    prompt = (6 * demo().tokenizer.encode("\n".join(prompts())))[:4500]
    before = cluster.engine.epoch.number
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if not killed:
            killed.append(cluster.pid(1))
            os.kill(killed[0], signal.SIGKILL)

    first = cluster.engine.prefill(prompt, 2, GREEDY, Exactness.ARGMAX, progress)
    assert [first] == one_host(demo().target, None, prompt, 0, 1)
    assert cluster.engine.epoch.number == before + 1


def test_two_of_three_hosts_lost_and_then_the_last(cluster: Cluster) -> None:
    """What is left takes over, down to this host alone; then the run ends with the reasons."""

    def lose(*ranks: int) -> None:
        names = [cluster.engine.epoch.hosts[rank] for rank in ranks]
        pids = [cluster.pid(rank) for rank in ranks]
        cluster.dead.update(names)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    long = one_host(demo().target, None, encoded(9), 0, 300)
    assert answer(cluster.engine, encoded(9), 2, 300, after_round=at_round(2, lambda: lose(0, 1))) == long
    assert cluster.engine.epoch.hosts == ("local#3",)
    # both are named, whichever was noticed first
    assert all(f"{name}: " in cluster.notes.lines[-1] for name in ("local#1", "local#2"))
    cluster.dead.add("local#3")
    with pytest.raises(ClusterLost) as lost:
        answer(cluster.engine, encoded(9), 2, 1500, after_round=at_round(2, lambda: os.kill(cluster.pid(0), 9)))
    assert "no host is left" in str(lost.value)
    assert "signal 9" in str(lost.value)


# what a kernel that refuses an instruction, or a driver that aborts, looks like from outside
_CRASH = """
import os, sys
sys.stdin.buffer.read(4)
os.write(1, START)
frame = b'{"kind":"hello","pid":%d,"versions":{}}' % os.getpid()
os.write(1, len(frame).to_bytes(4, "big") + frame)
os.write(2, b"illegal instruction\\n")
os.abort()
"""


def test_a_worker_that_dies_at_load_ends_the_run_with_the_evidence() -> None:
    """It would be started again and again, and nobody would learn why."""
    crashed: list[int] = []

    def crashing(host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> StartedProcess:
        if host.name == "local#2":
            return start(host, arguments, environment)
        script = _CRASH.replace("START", repr(START_MARKER))
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        crashed.append(process.pid)
        return StartedProcess(host, process)

    with pytest.raises(ClusterLost) as lost, ring("demo", (0, 4, 8), starter=crashing):
        pass
    # no retry storm, and each failure is told of with its host, its end and its last words
    assert len(crashed) == len(lost.value.failures) == 3
    for failure in lost.value.failures:
        for said in ("local#1", "signal 6", "illegal instruction"):
            assert said in failure


class Watched:
    """A worker's stdout, which does something when the worker says that it has loaded."""

    def __init__(self, stream: BinaryIO, loaded: Callable[[], object]) -> None:
        self._stream, self._loaded = stream, loaded

    def read(self, nbytes: int) -> bytes:
        got = self._stream.read(nbytes)
        if b'"loaded"' in got:
            self._loaded()
        return got


def test_a_host_that_starts_late_is_waited_for(tmp_path: Path) -> None:
    """Others have loaded before it says a word: what they said then must not be lost, or the ring never forms."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def starter(host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> StartedProcess:
        if host.name == "local#2":
            quick = start(host, arguments, environment)
            quick.stdout = cast(BinaryIO, Watched(quick.stdout, lambda: gate.write_text("go\n")))
            return quick
        late = ["sh", "-c", 'read line <"$0" && exec "$@"', str(gate), *own_command(), *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(late, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)
        return StartedProcess(host, process)

    with ring("demo", (0, 4, 8), starter=starter, check=deadline(PATIENCE_S)) as engine:
        assert answer(engine, encoded(0), 0, 20) == expected(0, 0, GREEDY)[:20]


def deadline(seconds: float) -> Callable[[], None]:
    """A check that fails the test where a ring would be waited for without end."""
    until_s = time.monotonic() + seconds

    def check() -> None:
        assert time.monotonic() < until_s, "the ring does not form"

    return check


def test_a_decider_that_takes_over_may_lack_the_head(tmp_path: Path) -> None:
    """The text is the same without drafts, and the reader is told; for the first decider it is an error."""
    sidecar, notes = tmp_path / "mtp.safetensors", Notes()
    shutil.copy(DEMO_SIDECAR, sidecar)
    asked = Drafting("head", sidecar=str(sidecar), needed=True)
    with ring("demo", (0, 4, 8), asked, notes=notes) as engine:
        out = [engine.prefill(encoded(0), 3, GREEDY, Exactness.ARGMAX)]
        # while nothing has been asked for: a decider that is quick has said all before a reader that is slow can act
        sidecar.unlink()
        pid = engine.epoch.pids[1]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for round_ in engine.rounds(NUM_TOKENS - 1, frozenset()):
            out += round_.tokens
        assert out == expected(0, 3, GREEDY)
    (line,) = notes.lines
    assert "signal 9" in line
    assert "no drafts from here on" in line
    assert str(sidecar) in line


def test_neighbours_that_never_connect_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no rank is blamed for what it waited for: here one is stopped between loading and joining."""
    monkeypatch.setattr(epoch, "_JOIN_S", 2.0)
    stopped: list[int] = []

    def starter(host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> StartedProcess:
        process = start(host, arguments, environment)
        if host.name == "local#1":
            process.stdout = cast(BinaryIO, Watched(process.stdout, lambda: stop(process._process.pid)))
        return process

    def stop(pid: int) -> None:
        stopped.append(pid)
        os.kill(pid, signal.SIGSTOP)

    with pytest.raises(RingError, match=r"did not connect within \d+ s"), ring("demo", (0, 4, 8), starter=starter):
        pass
    assert stopped


def test_a_slow_reader_does_not_hold_the_ring_up() -> None:
    """A terminal that is scrolled back must not make hosts lose one another."""
    with ring("demo", (0, 4, 8), WITH_HEAD, lease_s=3.0) as engine:
        first = engine.prefill(encoded(2), 0, GREEDY, Exactness.ARGMAX)
        rounds = engine.rounds(NUM_TOKENS - 1, frozenset())
        out = [first, *next(rounds).tokens]
        # the ring goes on to its end while one round was read
        while engine.epoch.counts()[0] < 2 * NUM_TOKENS:
            assert engine.stats.rounds == 1
        for round_ in rounds:
            out += round_.tokens
        assert out == expected(2, 0, GREEDY)
        assert engine.stats.recoveries == 0


def test_what_the_decider_refuses_in_words_is_no_loss() -> None:
    """A bias for a token that the model has not: starting the workers anew would not make it right."""
    notes = Notes()
    asked = SamplingSettings(temperature=0.7, logit_bias=((10**8, 1.0),))
    with ring("demo", (0, 4, 8), WITH_HEAD, notes=notes) as engine:
        with pytest.raises(WorkerFailed, match="100000000=1.0") as caught:
            answer(engine, demo().tokenizer.encode(prompts()[0]), 2, 10, asked)
        assert engine.epoch.number == 1
    assert caught.value.error == "OptionError"
    assert notes.lines == []
