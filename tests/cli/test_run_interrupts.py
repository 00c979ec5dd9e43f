"""Ctrl-C, at every stage of a run: what was written stays, one line says so, and no traceback."""

import signal
from pathlib import Path
from subprocess import Popen
from threading import Event

from cli_checkpoints import DEMO
from cli_runner import Finished, OnTerminal, Program
from hub_loopback import WAIT_S, LoopbackHub, Repo

INTERRUPTED = 130
NUM_WORDS = 3500
LONG_PROMPT = " word" * NUM_WORDS  # several passes, of which the first is reported
SLOWLY = {"SKULK_BLAS": "reference"}
LONG_ANSWER = ("--max-tokens", "3500")  # many seconds


def ending(process: "Popen[bytes]", read_stdout: bytes = b"", read_stderr: bytes = b"") -> Finished:
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = process.stdout.read(), process.stderr.read()
    return Finished(process.wait(), (read_stdout + stdout).decode(), (read_stderr + stderr).decode())


def test_while_answering(skulk: Program) -> None:
    process = skulk.start("run", "demo", "Return the", *LONG_ANSWER)
    assert process.stdout is not None
    assert process.stderr is not None
    # of several rounds, or there is no speed to tell, and long before the end
    first = b""
    while len(first) < 100:
        first += process.stdout.read(100)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    figures = process.stderr.readline()
    # ended by now, but for Python's own ending
    process.send_signal(signal.SIGINT)
    finished = ending(process, first, figures)
    assert finished.code == INTERRUPTED
    assert len(finished.stdout) > 100
    assert finished.stdout.endswith("\n")
    assert "tok/s" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_while_answering_in_json(skulk: Program) -> None:
    terminal = OnTerminal(skulk, "run", "demo", *LONG_ANSWER, "--json")
    terminal.wait_for("answering")
    for _ in range(3):
        terminal.process.send_signal(signal.SIGINT)
    finished = terminal.finish()
    assert "Traceback" not in finished.stderr
    assert finished.code == INTERRUPTED
    answer = finished.answer
    assert answer["finish_reason"] == "interrupted"
    assert answer["text"]
    assert 0 < len(answer["tokens"]) < 3500


def test_while_reading_the_prompt(skulk: Program) -> None:
    terminal = OnTerminal(skulk, "run", "demo", LONG_PROMPT, "--json", **SLOWLY)
    terminal.wait_for("reading the prompt")
    terminal.process.send_signal(signal.SIGINT)
    finished = terminal.finish()
    assert "Traceback" not in finished.stderr
    assert finished.code == INTERRUPTED
    answer = finished.answer
    assert (answer["text"], answer["tokens"], answer["finish_reason"]) == ("", [], "interrupted")
    assert answer["stats"]["prompt_tokens"] == NUM_WORDS


def test_while_loading(skulk: Program) -> None:
    terminal = OnTerminal(skulk, "run", "demo", "hi")
    terminal.wait_for("loading demo")
    terminal.process.send_signal(signal.SIGINT)
    finished = terminal.finish()
    assert "Traceback" not in finished.stderr
    assert finished.code == INTERRUPTED
    assert finished.stdout == ""
    assert "interrupted" in finished.stderr


def test_while_downloading(skulk: Program, tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        hub.repos["owner/tiny"] = Repo({path.name: path.read_bytes() for path in DEMO.iterdir()})
        interrupted = Event()
        hub.before_body["model.safetensors"] = lambda: interrupted.wait(WAIT_S)
        terminal = OnTerminal(skulk, "run", "owner/tiny", "hi", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path))
        terminal.wait_for(" MB")
        terminal.process.send_signal(signal.SIGINT)
        interrupted.set()
        finished = terminal.finish()
    assert "Traceback" not in finished.stderr
    assert (finished.code, finished.stdout) == (INTERRUPTED, "")
    assert "interrupted" in finished.stderr


def test_before_anything_was_said(skulk: Program) -> None:
    # so that it says which modules it imports
    process = skulk.start("run", "demo", "hi", PYTHONVERBOSE="1")
    assert process.stderr is not None
    while b"import 'typer'" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    finished = ending(process)
    assert "Traceback" not in finished.stderr
    assert finished.code == INTERRUPTED
    assert finished.stdout == ""
