"""Several hosts over real ssh: network namespaces, each with an sshd of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netns
import pytest
from cli_checkpoints import DEMO_SIDECAR
from cli_runner import TIMEOUT_S, Argument, Finished, Program, command
from netns import Cluster

PROMPT = "The server handles each request in a separate thread. If"
NUM_TOKENS, NUM_LONG = 48, 400
OURS = ("worker", "host-report")


@dataclass
class Home:
    """Where `skulk` is started, with a hosts.yaml that names every host."""

    cluster: Cluster
    program: Program

    def start(self, *arguments: Argument) -> "subprocess.Popen[bytes]":
        return self._start(command(arguments))

    def start_python(self, code: str, *arguments: Argument) -> "subprocess.Popen[bytes]":
        """A piece of Python, where `skulk` is started."""
        return self._start([sys.executable, "-c", code, *map(str, arguments)])

    def _start(self, words: Sequence[str | Path]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.cluster.at_home(words),
            env=self.program.environment(self.cluster.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def run(self, *arguments: Argument) -> Finished:
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
        return Finished(process.returncode, stdout.decode(), stderr.decode())

    def python(self, code: str, *arguments: Argument) -> str:
        """What a piece of Python prints, run where `skulk` is started."""
        done = subprocess.run(
            self.cluster.at_home([sys.executable, "-c", code, *map(str, arguments)]),
            env=self.program.environment(self.cluster.environment()),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def decode(self, num_tokens: int, *arguments: Argument) -> dict[str, Any]:
        finished = self.run("run", "demo", PROMPT, "--max-tokens", str(num_tokens), "--json", *arguments)
        assert finished.code == 0, finished.stderr
        return finished.answer

    def assert_nothing_left(self) -> None:
        """No process of ours and no port but sshd's, on any host."""
        for host in self.cluster.hosts:
            for word in OURS:
                host.wait_gone(word)
            assert host.listening() == {22, 2222}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from netns.cluster_or_skip(tmp_path_factory.mktemp("hosts") / "cluster", num_hosts=3, num_links=2)


@pytest.fixture(scope="module")
def home(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Home:
    program = Program(tmp_path_factory.mktemp("home"), "http://127.0.0.1:9")
    cluster.write_hosts(program.home / "config")
    return Home(cluster, program)


@pytest.fixture(scope="module")
def alone(home: Home) -> dict[str, Any]:
    """What one host writes."""
    return home.decode(NUM_LONG)


def test_hosts_over_ssh_decode_what_one_host_does(home: Home, alone: dict[str, Any]) -> None:
    """Two other machines and this one: the same tokens, over the link that was asked for and no other."""
    b = home.cluster["b"]
    before = b.received_nbytes(link=1)
    spread = home.decode(NUM_TOKENS, "--peers", "a,b", "--link", "10.77.1.0/24")
    assert spread["tokens"] == alone["tokens"][:NUM_TOKENS]
    assert [rank["host"] for rank in spread["ring"]["ranks"]] == ["a", "b", "local"]
    # half of the hidden rows that the answer alone is made of
    assert b.received_nbytes(link=1) - before > 256 * 4 * NUM_TOKENS // 2
    home.assert_nothing_left()


# Starts a worker, says its process id, and does with it as it is told.
HOLD = """
import sys
from skulk_core.cluster.frames import read_frame, skip_banner
from skulk_core.cluster.peers import Host
from skulk_core.cluster.transport import start
from skulk_core.formats.hosts import parse_address
host = Host(name="a", ssh=parse_address(sys.argv[1]), command=(sys.argv[2],))
worker = start(host, ["worker", "--lease", "8"], {"SEEN": "a 'b' $c"})
assert skip_banner(worker.stdout) is None, worker.failure()
while (frame := read_frame(worker.stdout))["kind"] != "hello":
    pass
print(frame["pid"], flush=True)
if sys.stdin.readline() == "kill\\n":
    worker.kill(frame["pid"])
"""


def test_a_worker_outlives_neither_its_launcher_nor_being_stopped(home: Home) -> None:
    """Nobody logs in everywhere to look for processes that hold memory."""
    a = home.cluster["a"]
    for order in ("kill -9 of the launcher", "kill of a stopped worker"):
        holder = subprocess.Popen(
            home.cluster.at_home([sys.executable, "-c", HOLD, a.peer, str(a.folder / "skulk")]),
            env=home.program.environment(home.cluster.environment()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        assert pid in a.processes("worker")
        assert b"SEEN=a 'b' $c" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if order.startswith("kill -9"):
            os.killpg(holder.pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGSTOP)
            holder.stdin.write("kill\n")
        holder.communicate(timeout=TIMEOUT_S)
        home.assert_nothing_left()


@pytest.fixture
def two_links(home: Home, tmp_path: Path) -> Iterator[Home]:
    """As `home`, but ssh goes by the second link; whatever is cut is mended afterwards."""
    listed = {
        host.name: {"ssh": f"root@{host.addresses[1]}", "command": str(host.folder / "skulk")}
        for host in home.cluster.hosts
    }
    home.cluster.write_hosts(tmp_path / "config", **listed)
    yield Home(home.cluster, Program(tmp_path, "http://127.0.0.1:9"))
    for host in home.cluster.hosts:
        for link in (0, 1):
            host.set_link(up=True, link=link)


def ending(process: "subprocess.Popen[bytes]", seen: bytes) -> tuple[str, str]:
    """The whole answer, and what was said beside it."""
    try:
        rest, said = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, said.decode()
    return (seen + rest).decode(), " ".join(said.decode().split())


LONG_PROMPT = "The server handles each request in a separate thread. " * 120


def test_cut_links_do_not_end_the_text(two_links: Home) -> None:
    """The ring's link in the midst of the prompt: another carries the ring then. Both: the host is done without."""
    arguments = ("run", "demo", LONG_PROMPT, "--max-tokens", str(NUM_LONG))
    expected = two_links.run(*arguments)
    a, at_home = two_links.cluster["a"], two_links.cluster.home
    # so slow that the prompt is not read before the cut
    a.limit(1, link=0)
    before = at_home.received_nbytes(link=0)
    process = two_links.start(*arguments, "--peers", "a")
    try:
        # rows of the prompt, far more than it takes to connect
        while at_home.received_nbytes(link=0) < before + 200_000:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        a.set_link(up=False, link=0)
        assert process.stdout is not None
        seen = process.stdout.read(1)
        a.set_link(up=False, link=1)
        answer, said = ending(process, seen)
    finally:
        process.kill()
        a.limit(10_000, link=0)
    assert answer == expected.stdout, said
    first, second = said.split(" none lost")[:2]
    assert "a link of the ring was lost" in first
    assert "local cannot connect to a at 10.77.0.1" in first
    assert "on a, local after" in first
    assert "a: " in second
    assert "on local after" in second
    two_links.assert_nothing_left()


def test_a_ring_s_only_link_cut_in_the_first_rounds(two_links: Home, alone: dict[str, Any]) -> None:
    """Every worker lives on and is heard of, and nothing is known yet of how long a round takes."""
    ring = ("--peers", "a", "--link", "link0", "--max-tokens", str(NUM_LONG))
    process = two_links.start("run", "demo", PROMPT, *ring)
    assert process.stdout is not None
    seen = process.stdout.read(1)
    two_links.cluster["a"].set_link(up=False, link=0)
    answer, said = ending(process, seen)
    assert answer == alone["text"] + "\n", said
    assert "a: the ring's link is cut: " in said
    assert "went on as epoch" in said
    assert "on local after" in said
    two_links.assert_nothing_left()


# A connection that is cut while something is under way, which the other end cannot know.
UNANSWERED = """
import socket, subprocess, sys, threading
from skulk_core.cluster.keepalive import is_unanswered, when_unanswered
unanswered = threading.Event()
with socket.create_connection((sys.argv[1], 22)) as connection:
    connection.recv(1)
    when_unanswered([connection.fileno()], unanswered.set)
    connection.sendall(b"answered")
    subprocess.run(["ip", "link", "set", "to-a1", "down"], check=True)
    connection.sendall(b"not answered")
    print(is_unanswered(connection.fileno()), unanswered.wait(60))
subprocess.run(["ip", "link", "set", "to-a1", "up"], check=True)
"""


def test_a_cut_with_something_under_way_both_ways(home: Home) -> None:
    """Neither end asks whether the other is there, as both wait to be answered: a quarter of an hour, by default."""
    assert home.python(UNANSWERED, home.cluster["a"].addresses[1]).split() == ["False", "True"]


def test_what_is_wrong_with_a_host_has_a_name_and_an_advice(home: Home, tmp_path: Path) -> None:
    """Each mistake as its own type, all in one look; a banner of the login is none."""
    a, b, c = home.cluster.hosts
    good = home.cluster.write_program(a, {})
    noisy = script(tmp_path / "noisy", 'echo "Welcome! $(date)"', f'exec {good} "$@"')
    old = script(tmp_path / "old", 'echo "Error: No such command: $1" >&2', "exit 2")
    home.cluster.forget_host_key(b)
    keys = c.folder / "authorized_keys"
    kept = keys.read_text()
    keys.write_text("")
    address = a.addresses[0]
    config = tmp_path / "config"
    home.cluster.write_hosts(
        config,
        a={"ssh": a.peer, "command": str(noisy)},
        old={"ssh": f"root@{address}:2222", "command": str(old)},
        gone={"ssh": "root@10.77.0.77"},
        closed={"ssh": f"root@{address}:2223"},
        empty={"ssh": f"root@{a.addresses[1]}", "command": "/nowhere/skulk"},
    )
    there = Home(home.cluster, Program(tmp_path, "http://127.0.0.1:9"))
    try:
        finished = there.run("peers", "--json", "--model", "demo")
        # an answer is refused with the same words
        for names, words in (
            ("gone,local", ("gone: ", "No route to host", "`ssh -T root@10.77.0.77 true`")),
            ("a,b,local", ("b: ", f"`ssh {b.peer}`", "fingerprint")),
        ):
            there.run("run", "demo", PROMPT, "--peers", names).assert_fails(1, *words)
    finally:
        home.cluster.remember_host_key(b)
        keys.write_text(kept)
    assert finished.code == 1, finished.stderr
    answer = json.loads(finished.stdout)
    found = {one["host"]: one for one in answer["hosts"]}
    assert {name: one.get("error") for name, one in found.items()} == {
        "a": None,
        "b": "HostKeyRefused",
        "c": "LoginRefused",
        "old": "SkulkMissing",
        "gone": "PeerUnreachable",
        "closed": "PeerUnreachable",
        "empty": "SkulkMissing",
        "local": None,
    }
    assert f"`ssh {b.peer}`" in found["b"]["advice"]
    assert f"ssh -T -p 2223 root@{address} true" in found["closed"]["advice"]
    assert "/nowhere/skulk" in found["empty"]["message"]
    assert "refused" in found["closed"]["message"]
    assert {one["address"] for one in found["a"]["interfaces"]} == {*a.addresses, "127.0.0.1"}
    assert found["a"]["model"]["missing"] == 0
    assert found["a"]["model"]["nbytes"] > 0
    home.assert_nothing_left()


def test_a_sidecar_that_the_decider_lacks_is_refused(home: Home, tmp_path: Path) -> None:
    """It is read there and not here: without a word nothing would be drafted, and the run would only be slow."""
    b, sidecar = home.cluster["b"], tmp_path / "sidecar"
    shutil.copytree(DEMO_SIDECAR.parent, sidecar)
    hidden = f'mount -t tmpfs none {sidecar} && exec {home.cluster.write_program(b, {})} "$@"'
    home.cluster.write_hosts(
        tmp_path / "config",
        b={
            "ssh": b.peer,
            "command": str(script(tmp_path / "b", f"exec unshare --mount sh -c '{hidden}' skulk \"$@\"")),
        },
    )
    here = Home(home.cluster, Program(tmp_path, "http://127.0.0.1:9"))
    asked = ("run", "demo", PROMPT, "--peers", "a,b,local:0", "--draft-depth", "2", "--sidecar", sidecar)
    here.run(*asked).assert_fails(1, "b: ", str(sidecar))
    home.assert_nothing_left()


def test_one_machine_twice_and_another_version_are_refused(home: Home, tmp_path: Path) -> None:
    """Before anything is loaded, naming the host and what differs."""
    a, b, _ = home.cluster.hosts
    (tmp_path / "other" / "mlx_lm-0.31.0.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: mlx-lm\nVersion: 0.31.0\n"
    (tmp_path / "other" / "mlx_lm-0.31.0.dist-info" / "METADATA").write_text(metadata)
    settings = {"PYTHONPATH": f"{tmp_path / 'other'}:{netns.ROOT}"}
    program = home.cluster.write_program(a, {})
    home.cluster.write_hosts(
        tmp_path / "config",
        again={"ssh": f"root@{a.addresses[1]}", "command": str(program)},
        b={"ssh": b.peer, "command": str(home.cluster.write_program(b, settings))},
    )
    here = Home(home.cluster, Program(tmp_path, "http://127.0.0.1:9"))
    here.run("plan", "demo", "--peers", "a,again,local:0").assert_fails(2, "again: is the same machine as a", "local:0")
    other = here.run("plan", "demo", "--peers", "b")
    other.assert_fails(1, "b: the version of mlx-lm is 0.31.0, on local it is")
    home.cluster.write_program(b, {})


def test_a_plan_says_where_every_rank_listens(home: Home) -> None:
    """With the bytes of every part. A host that is told to use one link is spoken to by it, from both sides."""
    finished = home.run("plan", "demo", "--peers", "a,b,local", "--split", "4,3,1", "--link", "b=link1", "--json")
    assert finished.code == 0, finished.stderr
    stages = finished.answer["stages"]
    assert [stage["layers"] for stage in stages] == [[0, 4], [4, 7], [7, 8]]
    assert [stage["link"]["address"] for stage in stages] == ["10.77.0.1", "10.77.1.2", "10.77.1.254"]
    assert sum(stage["parts"]["layers"] for stage in stages) == sum(finished.answer["layer_nbytes"])


def script(file: Path, *lines: str) -> Path:
    """A program of a host."""
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    file.chmod(0o755)
    return file


def test_the_hosts_of_the_tests_leave_nothing_behind(tmp_path: Path) -> None:
    """A test run must not fill the machine with namespaces and sshds."""
    if netns.missing():
        pytest.skip(netns.missing())
    before = set(netns.namespaces())
    pids: list[int] = []

    def interrupted() -> None:
        with Cluster(tmp_path / "own", num_hosts=1) as own:
            pids.extend(own["a"].pids())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert pids
    assert set(netns.namespaces()) == before
    assert not (tmp_path / "own").exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
