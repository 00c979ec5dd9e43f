"""Extracts in processes of their own, forked from one that has imported everything: cheap enough to kill twenty.

As a program it is that process: it reads one request a line, `{"run": ...}` or `{"wait": PID}`, and answers each with a
line. As a module it is the other side.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its answer, or its error's type and message; `killed` if it had no time for either."""

    killed: bool
    answer: dict[str, Any]
    error: str = ""
    message: str = ""

    def raised(self, error: str, *words: str) -> None:
        """Fail unless it ended with the error of that name, whose message has every word."""
        assert self.error == error, self
        for word in words:
            assert word in self.message, self.message


class Worker:
    """The process that forks. Its Hub and its folders are those of its environment."""

    def __init__(self, endpoint: str, home: Path, token: str = "") -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "XDG_"))}
        ours = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home / "hf"),
            "HF_TOKEN": token,
            "XDG_CONFIG_HOME": str(home / "config"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
        }
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=kept | ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)

    def start(self, source: str, folder: Path, **wish: Any) -> int:
        """Begin an extract; the process's id."""
        return int(self._ask({"run": {"source": source, "folder": str(folder), **wish}})["pid"])

    def wait(self, pid: int) -> Ended:
        """What became of it."""
        return Ended(**self._ask({"wait": pid}))

    def extract(self, source: str, folder: Path, **wish: Any) -> Ended:
        """One extract, to its end."""
        return self.wait(self.start(source, folder, **wish))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, dict)
        return answer


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One extract in this process, as the command does it.

    `part_nbytes` is the size of fetched parts. `die_at_tensor` kills the process when it begins to write the tensor of
    that number, `die_at_file` before or after a file of that name gets it: `["after", "README.md"]`. With `measure`,
    the answer has the peak of memory above what the process had before, with torch already imported.
    """
    from threading import Event

    import swp.reading
    from skulk_core.errors import SkulkError
    from swp.extract import Wish, extract
    from swp.sources import open_source

    cancel, progress, num_written = Event(), [], 0
    swp.reading.PART_NBYTES = request.get("part_nbytes", swp.reading.PART_NBYTES)
    replace, (when, file) = os.replace, request.get("die_at_file", ("", ""))

    def replace_and_die(source: Any, target: Any) -> None:
        if when == "before" and Path(target).name == file:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if when == "after" and Path(target).name == file:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_progress(what: str, nbytes: int, total: int | None) -> None:
        nonlocal num_written
        progress.append((what, nbytes, total))
        num_written += what.startswith("writing")
        if num_written and num_written == request.get("die_at_tensor"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die
    idle_nbytes = _memory_before() if request.get("measure") else 0
    names = ("layout", "compare", "licence_unknown", "num_jobs")
    wish = Wish(**{name: request[name] for name in names if name in request})
    try:
        source = open_source(request["source"], request.get("said"), cancel)
        done = extract(
            source,
            Path(request["folder"]),
            wish,
            _catalog(),
            "swp test",
            cancel,
            on_progress,
        )
    except SkulkError as error:
        return {"killed": False, "answer": {}, "error": type(error).__name__, "message": str(error)}
    peak_nbytes = _memory("VmHWM") - idle_nbytes if idle_nbytes else None
    return {"killed": False, "answer": {"was_there": done.was_there, "progress": progress, "peak_nbytes": peak_nbytes}}


def _memory_before() -> int:
    """What the process has now, once torch is there; from here on the kernel notes its peak anew."""
    import torch

    torch.zeros(1 << 22).mul_(2.0).to(torch.bfloat16)  # the first computation starts its threads
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(kind: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


@cache
def _catalog() -> Any:
    from skulk_core.catalog import Catalog

    return Catalog.known()


def main() -> None:
    import swp.extract
    import swp.sources  # noqa: F401

    _catalog()

    pipes: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                with os.fdopen(writer, "w") as stream:
                    json.dump(run(request["run"]), stream)
                os._exit(0)
            os.close(writer)
            pipes[pid] = reader
            print(json.dumps({"pid": pid}), flush=True)
        else:
            pid = request["wait"]
            with os.fdopen(pipes.pop(pid)) as stream:
                text = stream.read()
            _, status = os.waitpid(pid, 0)
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if killed:
                print(json.dumps({"killed": True, "answer": {}}), flush=True)
            else:
                assert status == 0, status
                print(text, flush=True)


if __name__ == "__main__":
    main()
