"""However the program ends that started the workers, none of them is left, and no port and no file of theirs."""

import os
import shutil
import signal
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from cli_checkpoints import DEMO_SIDECAR, demo_copy
from cli_runner import TIMEOUT_S, OnTerminal, Program
from cluster_rings import wait_until_gone
from proc_files import children, listening
from run_json_page import assert_as_documented

INTERRUPTED = 130
DEMO_PROMPT = "The server handles each request in a separate thread. If"


@pytest.fixture(scope="module")
def skulk(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program with folders of its own, in which MLX compiles its kernels once."""
    home = tmp_path_factory.mktemp("home")
    temporary = home / "tmp"
    temporary.mkdir()
    return Program(home, "http://127.0.0.1:9", {"TMPDIR": str(temporary)})


class Running:
    """A long answer over two local ranks, of which the first words were read: one token has no speed to tell."""

    def __init__(self, skulk: Program) -> None:
        self.process = skulk.start("run", "demo", "--peers", "local:2", "--max-tokens", "3500")
        assert self.process.stdout is not None
        self.first = b""
        while len(self.first) < 100:
            part = self.process.stdout.read(100)
            assert part, self.process.communicate()[1].decode()
            self.first += part
        self.workers = children(self.process.pid)
        self.descriptors = [os.pidfd_open(pid) for pid in self.workers]
        # a ring that is whole waits for nobody
        assert not any(listening(pid) for pid in self.workers)

    def assert_gone(self) -> None:
        """Fail unless every worker ends."""
        assert len(self.workers) == 2
        assert wait_until_gone(self.descriptors), "a worker outlived its launcher"
        for descriptor in self.descriptors:
            os.close(descriptor)


def test_killed(skulk: Program) -> None:
    running = Running(skulk)
    running.process.kill()
    running.process.communicate(timeout=TIMEOUT_S)
    running.assert_gone()
    assert _left_in(skulk) == []


def test_interrupted(skulk: Program) -> None:
    """Ctrl-C: what was written stays, and everything ends."""
    running = Running(skulk)
    running.process.send_signal(signal.SIGINT)
    stdout, stderr = running.process.communicate(timeout=TIMEOUT_S)
    assert running.process.returncode == INTERRUPTED
    assert "Traceback" not in stderr.decode()
    assert "tok/s" in stderr.decode()
    assert stdout.endswith(b"\n")
    running.assert_gone()
    assert _left_in(skulk) == []


def test_its_reader_left(skulk: Program) -> None:
    running = Running(skulk)
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert running.process.wait(TIMEOUT_S) != 0
    running.assert_gone()


def test_a_whole_answer_and_what_is_said_of_it(skulk: Program, tmp_path: Path) -> None:
    folder = demo_copy(tmp_path / "model")
    shutil.copy(DEMO_SIDECAR, folder)
    asked = (DEMO_PROMPT, "--max-tokens", "20", "--draft-depth", "4", "--json")
    command = ("run", folder, *asked, "--peers", "local:2", "--certify")
    finished = skulk.run(*command)
    assert finished.code == 0, finished.stderr
    answer = finished.answer
    assert answer["certificate"]["holds"]
    assert answer["certificate"]["compared"] == 20
    assert answer["ring"]["messages_per_round"] == 2
    assert_as_documented(answer)
    # the deciding rank finds a head beside the checkpoint as one host does
    assert answer["sidecar"] == str(folder / DEMO_SIDECAR.name)
    (start, middle), (begin, end) = (rank["layers"] for rank in answer["ring"]["ranks"])
    assert (start, end) == (0, 8)
    assert middle == begin
    assert answer["text"] == skulk.run("run", "demo", *asked).answer["text"]
    assert _left_in(skulk) == []


def _kill_a_worker(launcher: int, other_than: Collection[int] = ()) -> list[int]:
    """Kill the first worker that runs, or will; every one that ran then."""
    until_s = time.monotonic() + TIMEOUT_S
    while not (workers := [pid for pid in children(launcher) if pid not in other_than]):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    os.kill(workers[0], signal.SIGKILL)
    return workers


def test_interrupted_while_a_new_ring_forms(skulk: Program) -> None:
    """With --json: the object has the text so far, and the ring that decoded it. Nothing is certified any more."""
    asked = ("--peers", "local:2", "--max-tokens", "3500", "--json", "--certify")
    terminal = OnTerminal(skulk, "run", "demo", *asked)
    terminal.wait_for("answering")
    lost = _kill_a_worker(terminal.process.pid)
    # a new one has been started
    while not set(children(terminal.process.pid)) - set(lost):
        assert terminal.process.poll() is None
        time.sleep(0.02)
    terminal.process.send_signal(signal.SIGINT)
    finished = terminal.finish()
    assert "Traceback" not in finished.stderr
    assert finished.code == INTERRUPTED
    answer = finished.answer
    assert (answer["finish_reason"], answer["error"], answer["certificate"]) == ("interrupted", None, None)
    assert answer["text"]
    assert answer["ring"]["epoch"] == 1
    assert len(answer["ring"]["ranks"]) == 2


def test_no_host_is_left_in_json(skulk: Program) -> None:
    """What was decoded until then is printed all the same, with the reason, before the error is."""
    terminal = OnTerminal(skulk, "run", "demo", "--peers", "local", "--max-tokens", "3500", "--json")
    terminal.wait_for("answering")
    lost = _kill_a_worker(terminal.process.pid)
    _kill_a_worker(terminal.process.pid, lost)
    finished = terminal.finish()
    assert finished.code == 1
    assert "Traceback" not in finished.stderr
    answer = finished.answer
    assert answer["finish_reason"] == "interrupted"
    assert answer["text"]
    for said in (answer["error"], " ".join(finished.stderr.split())):
        assert "no host is left" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--split", "4,4"), "goes with --peers"),
        (("--push",), "--push: goes with --peers"),
        (("--allow-public-link",), "--allow-public-link: goes with --peers"),
        (("--peers", "local:9"), "Name fewer hosts in --peers"),
        (("--peers", "local:2", "--backend", "nccl"), "the CPU of local#1, local#2"),
        (("--peers", "local:2", "--split", "4,5"), "layers"),
        (("--peers", "local:2", "--sidecar", "/nowhere/mtp.safetensors"), "/nowhere/mtp.safetensors"),
    ],
)
def test_refused_before_loading(skulk: Program, arguments: tuple[str, ...], said: str) -> None:
    finished = skulk.run("run", "demo", "hi", *arguments)
    assert finished.code in (1, 2)
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""


def _left_in(skulk: Program) -> list[str]:
    # kernels that MLX compiled are kept on purpose
    folder = Path(skulk.settings["TMPDIR"])
    return [path.name for path in folder.iterdir() if path.name != "mlx"]
