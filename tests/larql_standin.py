"""A stand-in for the external program larql, and a Hub with a model for it to read.

It knows the commands that `swp vindex` uses, reads its model as larql is said to (by name, whatever single commit lies
in the Hub's cache) and writes a folder of files of the same kinds. What it cannot show is what the real one does.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli_runner import ROOT, Finished
from hub_loopback import Repo
from hub_writing import TOKEN, WritingHub

MODEL = "first/Tiny.Model-1B"
CARD = b"---\nlicense: other\nlicense_name: tiny-licence\nlicense_link: LICENSE\n---\n# Tiny\n"
FILES = {
    "README.md": CARD,
    "LICENSE": b"Do as you like.\r\n",
    "NOTICE.txt": b"Made by first.\n",
    "config.json": b'{"model_type": "tiny"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights of the first commit",
}

_SCRIPT = """#!{python} -S
import hashlib, json, os, signal, subprocess, sys, time
from pathlib import Path

mode = Path(__file__ + ".mode").read_text()
arguments = sys.argv[1:]
with open(__file__ + ".log", "a") as log:
    seen = {{key: value for key, value in os.environ.items() if key.startswith(("HF_", "HUGGING"))}}
    log.write(json.dumps({{"arguments": arguments, "cwd": os.getcwd(), "environment": seen}}) + "\\n")
if arguments == ["--version"]:
    print({version!r})
    sys.exit(0)
print("larql says something", flush=True)
print("larql warns", file=sys.stderr, flush=True)
verb, source, dash_o, out = arguments[:4]
assert dash_o == "-o"
made = Path(out)
if mode == "nothing":
    sys.exit(0)
made.mkdir()
(made / "layers").mkdir()
if verb == "extract":
    assert arguments[4] == "--quant"
    snapshots = Path(os.environ["HF_HUB_CACHE"], "models--" + source.replace("/", "--"), "snapshots")
    (commit,) = snapshots.iterdir()
    weights = (commit / "model.safetensors").read_bytes()
    assert (commit / "config.json").is_file()
else:
    assert (verb, arguments[4]) == ("slice", "--preset")
    weights = b"part of " + Path(source, "layers", "0.bin").read_bytes()
(made / "layers" / "0.bin").write_bytes(weights)
(made / "gate.bin").write_bytes(weights[::-1])
if mode == "fail":
    sys.exit(3)
if mode == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if mode == "hang":
    child = subprocess.Popen(["sleep", "600"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(__file__ + ".child").write_text(f"{{os.getpid()}} {{child.pid}}")
    print("hanging", file=sys.stderr, flush=True)
    time.sleep(600)
if mode == "link":
    (made / "elsewhere").symlink_to("/etc/hostname")
if mode == "card":
    (made / "README.md").write_text("mine")
if mode == "licence":
    (made / "licence").write_text("mine")
    (made / "LICENSE").write_text("another one")
digest = "0" * 64 if mode == "wrong" else hashlib.sha256(weights[::-1]).hexdigest()
index = {{"model": source, "version": 2, "checksums": {{"gate.bin": digest}}}}
(made / "index.json").write_text("no index" if mode == "garbled" else json.dumps(index))
"""


@dataclass
class Larql:
    """The stand-in at `path`. `mode` is what goes wrong with its next runs."""

    path: Path

    def set(self, mode: str) -> None:
        Path(f"{self.path}.mode").write_text(mode)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every run but those for the version."""
        lines = Path(f"{self.path}.log").read_text().splitlines()
        return [run for line in lines if (run := json.loads(line))["arguments"] != ["--version"]]

    def forget(self) -> None:
        """Forget earlier runs."""
        Path(f"{self.path}.log").write_text("")


def write_larql(folder: Path, version: str = "larql 0.3.1 (stand-in)") -> Larql:
    """Write the program into `folder`, which belongs on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    larql = Larql(folder / "larql")
    larql.path.write_text(_SCRIPT.format(python=sys.executable, version=version))
    larql.path.chmod(0o755)
    larql.set("")
    larql.forget()
    return larql


@dataclass
class Bench:
    """A Hub with one model, larql on PATH, and a folder to work in."""

    hub: WritingHub
    larql: Larql
    home: Path

    def start(self, *arguments: str | Path, **settings: str) -> "subprocess.Popen[str]":
        """Start `swp` in the work folder."""
        return subprocess.Popen(
            [sys.executable, "-m", "cli.swp", *arguments],
            env=self.environment(settings),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, **settings: str) -> Finished:
        """Run `swp` to its end."""
        process = self.start(*arguments, **settings)
        stdout, stderr = process.communicate(timeout=120)
        return Finished(process.returncode, stdout, stderr)

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "XDG_"))}
        ours = {
            "PATH": f"{self.larql.path.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home / "hf"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "NO_PROXY": "127.0.0.1",
        }
        return kept | ours | settings

    @property
    def sha(self) -> str:
        """The model's commit."""
        return self.hub.repos[MODEL].sha

    def left(self) -> list[str]:
        """Names of everything in the work folder but what the program keeps for itself."""
        return sorted(path.name for path in self.home.iterdir() if path.name not in ("hf", "config"))


@contextmanager
def bench(home: Path) -> Iterator[Bench]:
    """A bench at which nothing was made yet."""
    (home / "work").mkdir(parents=True)
    with WritingHub() as hub:
        hub.repos[MODEL] = Repo(dict(FILES))
        yield Bench(hub, write_larql(home / "bin"), home / "work")
