"""Publishing against the loopback Hub in this process: the real client, its waits recorded in place of waited."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli_runner import TIMEOUT_S, Finished, Program
from hub_writing import TOKEN, WritingHub
from huggingface_hub import HfApi, constants
from sidecar_folder import write_folder
from typer.testing import CliRunner

from cli.swp import make_app
from swp.hub_write import HubWriter
from swp.plan import Plan, Wishes
from swp.publish import Published, apply, prepare, sidecar_publication

REPO = "org/tiny-model-1b-mtp"


@dataclass
class Desk:
    """A publisher's place: a Hub, a folder to publish, a catalog of their own."""

    hub: WritingHub
    folder: Path
    catalog: Path
    waits: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    token: str = TOKEN

    @property
    def writer(self) -> HubWriter:
        return HubWriter(HfApi(endpoint=self.hub.url, token=self.token), self.notes.append, self.waits.append)

    def plan(self, **wishes: Any) -> Plan:
        """What a dry run would print."""
        publication = sidecar_publication(self.folder, REPO)
        return prepare(self.writer, publication, REPO, Wishes(**wishes), self.catalog)

    def publish(self, **wishes: Any) -> Published:
        """What `swp publish` does with a folder."""
        return apply(self.plan(**wishes), self.writer, self.catalog, self.notes.append)


def use_hub(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process take `endpoint` for the Hub and `home` for what it keeps: never the real one, or a person's."""
    # read from the environment when the client is imported
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    url = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(home / "assets"))


@contextmanager
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk with a sidecar folder, at a Hub where nothing is published yet."""
    write_folder(tmp_path / "sidecar")
    with WritingHub() as hub:
        made = Desk(hub, tmp_path / "sidecar", tmp_path / "catalog.yaml")
        use_hub(hub.url, tmp_path / "hf", monkeypatch)
        monkeypatch.setattr("time.sleep", made.waits.append)
        yield made


@dataclass
class Publisher:
    """`swp` as a program, on a machine that is logged in to the loopback Hub."""

    hub: WritingHub
    home: Path

    def command(self, *arguments: str | Path, **settings: str) -> dict[str, Any]:
        """What `subprocess` needs to start it."""
        self.home.mkdir(exist_ok=True)
        base = {"HF_TOKEN": self.hub.token, "HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}
        environment = Program(self.home, self.hub.url).environment({**base, **settings})
        return {"args": [sys.executable, "-m", "cli.swp", *map(str, arguments)], "env": environment, "cwd": self.home}

    def run(self, *arguments: str | Path, **settings: str) -> Finished:
        """Run it to its end."""
        done = subprocess.run(
            **self.command(*arguments, **settings), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def here(self, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> Finished:
        """Run it in this process, which is much faster: for what only its answers matter of."""
        self.home.mkdir(exist_ok=True)
        use_hub(self.hub.url, self.home / "hf", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", self.hub.token)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(self.home / "config"))
        monkeypatch.chdir(self.home)
        done = CliRunner().invoke(make_app(), [*map(str, arguments)], catch_exceptions=False)
        return Finished(done.exit_code, done.stdout, done.stderr)

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start it."""
        return subprocess.Popen(**self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
