"""However the program ends that started the workers, none of them is left, and no port and no file of theirs."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from cli_checkpoints import DEMO_SIDECAR, demo_copy
from cli_runner import TIMEOUT_S, Program
from cluster_rings import wait_until_gone
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
    """A long answer over two local ranks, of which the first word was read."""

    def __init__(self, skulk: Program) -> None:
        self.process = skulk.start("run", "demo", "--peers", "local:2", "--max-tokens", "3500")
        assert self.process.stdout is not None
        self.first = self.process.stdout.read(1)
        assert self.first, self.process.communicate()[1].decode()
        self.workers = _children(self.process.pid)
        self.descriptors = [os.pidfd_open(pid) for pid in self.workers]
        self.ports = {port for pid in self.workers for port in _listening(pid)}

    def assert_gone(self) -> None:
        """Fail unless every worker ends, and its ports with it."""
        assert len(self.workers) == 2
        assert wait_until_gone(self.descriptors), "a worker outlived its launcher"
        for descriptor in self.descriptors:
            os.close(descriptor)
        assert not self.ports & _all_listening()


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for file in children for child in file.read_text().split())


def _all_listening() -> set[int]:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(words[1].split(":")[1], 16) for words in lines if words[3] == "0A"}


def _listening(pid: int) -> set[int]:
    """TCP ports that a process of ours listens at."""
    links = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(words[1].split(":")[1], 16) for words in lines if words[3] == "0A" and f"socket:[{words[9]}]" in links}


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--split", "4,4"), "goes with --peers"),
        (("--peers", "local:9"), "layers"),
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
