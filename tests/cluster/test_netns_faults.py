"""Hosts over ssh are lost in mid-text, one or all but one: the faults of the soak, and its checks."""

import random
from collections.abc import Iterator
from pathlib import Path

import netns
import pytest
from cli_runner import Program
from fault_rings import DRIVEN_FAULTS, SSH_FAULTS, Fault, SshRing
from fault_texts import Stream, broken_text
from netns import Cluster

PROMPT = "The server handles each request in a separate thread. If"
ASKED = (PROMPT, "--max-tokens", "1000", "--temperature", "0", "--draft-depth", "2")
FAULTS = {fault.name: fault for fault in (*SSH_FAULTS, *DRIVEN_FAULTS)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from netns.cluster_or_skip(tmp_path_factory.mktemp("hosts") / "cluster", num_hosts=2)


@pytest.fixture(scope="module")
def skulk(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Program:
    program = Program(tmp_path_factory.mktemp("home"), "http://127.0.0.1:9")
    cluster.write_hosts(program.home / "config")
    return program


@pytest.fixture(scope="module")
def unbroken(skulk: Program) -> bytes:
    """What one host writes."""
    finished = skulk.run("run", "demo", *ASKED)
    assert finished.code == 0, finished.stderr
    return finished.stdout.encode()


@pytest.mark.parametrize(
    ("drives_only", "names", "left"),
    [
        (False, ("kill -9 of ssh", "links of two of three down"), "local"),
        (True, ("SIGSTOP of the decider", "link of the decider down"), "a"),
    ],
)
def test_what_can_happen_to_hosts_costs_no_token(
    drives_only: bool, names: tuple[str, ...], left: str, cluster: Cluster, skulk: Program, unbroken: bytes
) -> None:
    """One fault after the other in one text: it is the unbroken one, and nothing is left on any host."""
    ring = SshRing(cluster, skulk, drives_only=drives_only)
    outcome = broken_text(ring, ASKED, unbroken, [FAULTS[name] for name in names], random.Random(5))
    assert outcome.wrong == []
    assert [one.fault for one in outcome.recoveries] == list(names)
    assert outcome.recoveries[-1].hosts == left


def test_a_host_that_cannot_hold_the_model_says_so_and_keeps_the_text(
    cluster: Cluster, tmp_path: Path, unbroken: bytes
) -> None:
    """Two hold it together. One is lost: what was written stays, and the end says what the other lacks."""
    settings = {
        host.name: {"ssh": host.peer, "command": str(cluster.write_program(host, {})), "memory_gb": "0.43"}
        for host in cluster.hosts
    }
    skulk = Program(tmp_path, "http://127.0.0.1:9")
    cluster.write_hosts(skulk.home / "config", **settings)
    ring = SshRing(cluster, skulk, drives_only=True)
    stream = Stream(ring.start("run", "demo", *ASKED))
    try:
        assert stream.wait_written(1), stream.said.decode()
        Fault("link down", "link").break_one(ring.ranks(stream.process.pid), 0.0)
        code = stream.end()
    finally:
        stream.process.kill()
        ring.heal()
    said = " ".join(stream.said.decode().split())
    assert code == 1, said
    assert "the hosts that are left (b) cannot take over" in said
    assert "b needs 0.44 GB, has 0.43 GB, short by 0.01 GB" in said
    assert "Traceback" not in said
    assert len(stream.out) > 1
    assert unbroken.startswith(stream.out.rstrip(b"\n"))
    assert ring.left() == []
