"""Runs `skulk` in a process of its own, as a shell does; or in this one, where only its answers matter."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 120  # reached only when a test fails

# No run needs torch, but where it is installed transformers spends seconds on importing it.
WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('cli.skulk', run_name='__main__', alter_sys=True)"
)
_SETTINGS = ("HF_", "HUGGING", "SKULK_", "LC_", "LANG", "PYTHON", "NO_COLOR", "FORCE_COLOR", "TTY_", "TERM", "COLUMNS")

Argument = str | bytes | Path


@dataclass(frozen=True)
class Finished:
    """A process that has ended, and all it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object that stdout must be."""
        answer = json.loads(self.stdout)
        assert isinstance(answer, dict)
        return answer

    def assert_fails(self, code: int, *words: str) -> None:
        """Fail unless it ended with ``code``, without a traceback, saying every one of ``words`` on stderr only."""
        assert "Traceback" not in self.stderr, self.stderr
        assert self.code == code, (self.code, self.stderr)
        assert self.stdout == ""
        for word in words:
            assert word in self.stderr


@dataclass
class Program:
    """`skulk` with an environment: a Hub's address, and folders of its own for what it keeps."""

    home: Path
    endpoint: str
    settings: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        *arguments: Argument,
        stdin: bytes | None = None,
        cwd: Path | None = None,
        stdout: int | IO[bytes] = subprocess.PIPE,
        **settings: str,
    ) -> Finished:
        """Run it to its end."""
        finished = subprocess.run(
            command(arguments),
            env=self.environment(settings),
            input=b"" if stdin is None else stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=cwd,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Finished(finished.returncode, (finished.stdout or b"").decode(), finished.stderr.decode())

    def run_all(self, commands: Mapping[str, Sequence[Argument]], **settings: str) -> dict[str, Finished]:
        """Run several at once."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            running = {name: pool.submit(self.run, *arguments, **settings) for name, arguments in commands.items()}
        return {name: finished.result() for name, finished in running.items()}

    def shell_all(self, scripts: Mapping[str, tuple[str, Sequence[Argument]]]) -> dict[str, Finished]:
        """Run several scripts at once."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            running = {name: pool.submit(self.shell, script, *rest) for name, (script, rest) in scripts.items()}
        return {name: finished.result() for name, finished in running.items()}

    def shell(self, script: str, *arguments: Argument) -> Finished:
        """Run a shell script in which "$@" is the program with ``arguments``."""
        finished = subprocess.run(
            ["bash", "-c", script, "bash", *command(arguments)],
            env=self.environment({}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Finished(finished.returncode, finished.stdout.decode(), finished.stderr.decode())

    def start(self, *arguments: Argument, stderr: int = subprocess.PIPE, **settings: str) -> "subprocess.Popen[bytes]":
        """Start it; nothing on stdin, and stdout unbuffered."""
        return subprocess.Popen(
            command(arguments),
            env=self.environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
        )

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Ours, less what a person or a build machine may have set, and never the real Hub."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        ours = {
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "NO_PROXY": "127.0.0.1",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
        }
        return kept | ours | self.settings | settings


class OnTerminal:
    """A process whose stderr is a terminal; its stdout is a pipe."""

    def __init__(self, program: Program, *arguments: Argument, **settings: str) -> None:
        self._master, slave = pty.openpty()
        self.process = program.start(*arguments, stderr=slave, **settings)
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read the terminal until ``text`` was shown."""
        while text not in self.shown:
            assert self._read(), f"ended without {text!r}: {self.shown}"

    def finish(self) -> Finished:
        """Read both to the end; stderr is all that the terminal was sent."""
        assert self.process.stdout is not None
        # both at once: either one blocks the process if nobody reads it
        with ThreadPoolExecutor(1) as pool:
            stdout = pool.submit(self.process.stdout.read)
            while self._read():
                pass
        os.close(self._master)
        return Finished(self.process.wait(TIMEOUT_S), stdout.result().decode(), self.shown)

    def _read(self) -> bool:
        try:
            got = os.read(self._master, 4096)
        except OSError:  # what Linux says when the other side of a terminal was closed
            got = b""
        self.shown += got.decode(errors="replace")
        return bool(got)


def in_process(*arguments: str | Path) -> Finished:
    """Run a command here, without paying for a start; it reads no stdin and must not need the Hub."""
    from cli.skulk import make_app

    result = CliRunner().invoke(make_app(), [str(argument) for argument in arguments], catch_exceptions=False)
    return Finished(result.exit_code, result.stdout, result.stderr)


def command(arguments: Sequence[Argument]) -> list[str | bytes | Path]:
    """The command line."""
    return [sys.executable, "-c", WITHOUT_TORCH, *arguments]
