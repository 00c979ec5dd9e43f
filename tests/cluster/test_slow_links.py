"""Links made slower than they are: what arrives is what was sent, later, and a ring over them decodes the same text."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cluster_rings import PATIENCE_S, Notes, answer, one_host, ring
from demo import demo, demo_head, prompts

from skulk_core.bench.instruments import RingInstruments
from skulk_core.bench.workload import ArmSpec, Workload
from skulk_core.cluster.delay_line import DelayLine, LinkShape
from skulk_core.cluster.engine import ClusterEngine
from skulk_core.cluster.slow_links import SlowLinks
from skulk_core.cluster.wire import AutoAtDecider
from skulk_core.errors import RingError
from skulk_core.formats.receipt_facts import PromptsRecord
from skulk_core.sampling.settings import SamplingSettings

NUM_TOKENS = 40
DELAY_S = 0.004


@dataclass
class Line:
    """A delay line between two pairs of sockets, on a clock that stands still unless it is moved."""

    line: DelayLine
    sender: socket.socket
    receiver: socket.socket
    now_s: float = 0.0

    def arrived(self, now_s: float) -> bytes:
        """What the receiver has been handed at ``now_s`` and has not read."""
        self.now_s = now_s
        self.line.deliver(unblocked=True)
        try:
            return self.receiver.recv(1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    sender, source = socket.socketpair()
    sink, receiver = socket.socketpair()
    for one in (source, sink, receiver):
        one.setblocking(False)
    made = Line(DelayLine(request.param, source, sink, lambda: made.now_s), sender, receiver)
    yield made
    for one in (sender, source, sink, receiver):
        one.close()


@pytest.mark.parametrize("line", [LinkShape(delay_s=0.005)], indirect=True)
def test_a_message_is_delayed_and_does_not_hold_up_the_next(line: Line) -> None:
    """A link that waits for each message to arrive would make every lap look longer than it is."""
    line.sender.sendall(b"first")
    line.line.take()
    line.now_s = 0.004
    line.sender.sendall(b"second")
    line.line.take()
    assert line.arrived(0.0049) == b""
    assert line.arrived(0.0051) == b"first"
    assert line.arrived(0.0089) == b""
    assert line.arrived(0.0091) == b"second"
    line.sender.shutdown(socket.SHUT_WR)
    line.line.take()
    line.arrived(0.013)
    assert not line.line.is_done
    assert line.arrived(0.0142) == b""
    assert line.line.is_done
    assert line.line.nbytes == 11


@pytest.mark.parametrize("line", [LinkShape(delay_s=0.001, rate_mbps=8)], indirect=True)
def test_a_rate_spaces_what_is_sent_at_once(line: Line) -> None:
    """A megabyte a second: a thousand bytes take a millisecond, and whoever comes behind them waits as long."""
    for _ in range(3):
        line.sender.sendall(bytes(1000))
        line.line.take()
    assert line.arrived(0.0019) == b""
    assert len(line.arrived(0.0021)) == 1000
    assert line.arrived(0.0029) == b""
    assert len(line.arrived(0.0041)) == 2000
    # it was idle since: nothing is owed
    line.now_s = 1.0
    line.sender.sendall(bytes(1000))
    line.line.take()
    assert line.arrived(1.0019) == b""
    assert len(line.arrived(1.0021)) == 1000


@pytest.mark.parametrize("line", [LinkShape(delay_s=0.001)], indirect=True)
def test_a_receiver_that_does_not_read_loses_nothing(line: Line) -> None:
    sent = os.urandom(3 << 20)
    threading.Thread(target=line.sender.sendall, args=(sent,), daemon=True).start()
    line.line.source.setblocking(True)
    taken = 0
    while taken < len(sent):
        line.line.take()
        taken = line.line.under_way_nbytes + line.line.nbytes
    line.now_s = 1.0
    line.line.deliver()
    assert line.line.is_blocked
    got = b""
    while len(got) < len(sent):
        got += line.arrived(1.0)
    assert got == sent


def test_both_directions_through_the_proxy_whole_and_in_order() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        links = SlowLinks(LinkShape(0.002), [f"127.0.0.1:{server.getsockname()[1]}"])
        host, port = links.addresses[0].split(":")
        there, back = os.urandom(1 << 20), os.urandom(1 << 20)
        with socket.create_connection((host, int(port)), PATIENCE_S) as caller:
            answered, _ = server.accept()
            with answered:
                sending = threading.Thread(target=answered.sendall, args=(back,), daemon=True)
                sending.start()
                threading.Thread(target=caller.sendall, args=(there,), daemon=True).start()
                assert _read(answered, len(there)) == there
                assert _read(caller, len(back)) == back
                # the end of one direction is passed on, and the other one stays
                caller.shutdown(socket.SHUT_WR)
                assert answered.recv(1) == b""
                answered.sendall(b"still there")
                assert _read(caller, 11) == b"still there"
            assert caller.recv(1) == b""
        links.close()
        links.close()
        assert links.forwarded_nbytes == len(there) + len(back) + 11
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)), PATIENCE_S)
    assert not [thread for thread in threading.enumerate() if thread.name == "slow links"]


def test_a_neighbour_that_listens_later_is_reached() -> None:
    """Ranks of a ring call each other in any order."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    links = SlowLinks(LinkShape(0.001), [f"127.0.0.1:{port}"])
    host, own = links.addresses[0].split(":")
    with socket.create_connection((host, int(own)), PATIENCE_S) as caller:
        caller.sendall(b"early")
        with socket.create_server(("127.0.0.1", port)) as server:
            answered, _ = server.accept()
            with answered:
                assert _read(answered, 5) == b"early"
    links.close()


def test_no_port_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "create_server", full)
    with pytest.raises(RingError, match="Too many open files"):
        SlowLinks(LinkShape(0.001), ["127.0.0.1:1"])


def _read(reader: socket.socket, nbytes: int) -> bytes:
    reader.settimeout(PATIENCE_S)
    got = b""
    while len(got) < nbytes:
        part = reader.recv(nbytes - len(got))
        assert part, "ended early"
        got += part
    return got


@pytest.fixture(scope="module")
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="module")
def engine(notes: Notes) -> Iterator[ClusterEngine]:
    with ring("demo", (0, 4, 8), links=LinkShape(DELAY_S, rate_mbps=200), notes=notes) as started:
        yield started
    assert not [thread for thread in threading.enumerate() if thread.name == "slow links"]


def encoded(index: int) -> list[int]:
    tokens: list[int] = demo().tokenizer.encode(prompts()[index])
    return tokens


def forwarded(engine: ClusterEngine) -> int:
    assert engine.epoch.slow_links is not None
    return engine.epoch.slow_links.forwarded_nbytes


def test_every_byte_of_a_ring_goes_over_the_slow_links(engine: ClusterEngine) -> None:
    """A rank that called its neighbour directly would be measured over a link that nobody has."""
    for depth in (0, 3):
        before, counted = forwarded(engine), engine.epoch.counts()[1]
        tokens = answer(engine, encoded(2), depth, NUM_TOKENS)
        assert tokens == one_host(demo().target, demo_head().head, encoded(2), depth, NUM_TOKENS)
        # of a drafting round the last hop may still be under way when the text is done, but nothing else can be
        sent = engine.epoch.counts()[1] - counted
        assert sent > 0
        assert forwarded(engine) - before == sent


def test_costs_and_splits_are_those_of_the_slow_links(engine: ClusterEngine) -> None:
    """Predictions and `auto` would otherwise be right for another network."""
    instruments = RingInstruments(engine)
    costs = instruments.costs(encoded(4), [0, 2], SamplingSettings(), lambda: None)
    assert set(costs.lap_s) == set(costs.verify_s) == {1, 3}
    # a lap of two ranks is two links long
    assert min(*costs.lap_s.values(), *costs.verify_s.values()) >= 2 * DELAY_S
    work = Workload("", (tuple(encoded(4)),), PromptsRecord("", "", (1,), False, None), 16, 1, SamplingSettings())
    for spec in (ArmSpec.fixed(2), ArmSpec.auto(lambda: AutoAtDecider(6))):
        split = instruments.profile(spec, work, lambda: None)
        assert split.tokens == 15
        assert split.link_s >= 2 * DELAY_S
        assert split.draft_s > 0
        assert split.other_s <= 0.3 * split.decode_s
    # the other ranks hold another text now, and the decider knows it
    assert answer(engine, encoded(4), 2, 12) == one_host(demo().target, None, encoded(4), 0, 12)
    assert all(engine.peaks())


def test_a_lost_rank_is_replaced_behind_slow_links_too(engine: ClusterEngine, notes: Notes) -> None:
    """The proxy of the ring that broke is gone with it."""
    old = engine.epoch.slow_links
    assert old is not None
    killed = engine.epoch.pids[0]
    assert killed is not None

    def after_round(number: int) -> None:
        if number == 1:
            os.kill(killed, signal.SIGKILL)

    # long enough not to be decoded before the signal
    expected = one_host(demo().target, None, encoded(5), 0, 200)
    assert answer(engine, encoded(5), 0, 200, after_round=after_round) == expected
    assert engine.stats.recoveries == 1
    assert engine.epoch.slow_links is not old
    assert forwarded(engine) > 0
    host, port = old.addresses[0].split(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), PATIENCE_S)
