"""`swp publish`, `verify`, `card` and `doctor` as programs: what a person types, sees, and can undo."""

import inspect
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_checkpoints import plain_llama
from hub_loopback import Repo
from hub_writing import TOKEN, USER, Fault, WritableRepo, WritingHub, card_problems
from huggingface_hub import ModelCard
from publishing import REPO, Publisher
from sidecar_folder import SHA, SOURCE, write_folder
from typer.main import get_command
from typer.testing import CliRunner
from upstream_checkpoints import qwen, write

from cli.arguments import complete
from cli.swp import make_app
from skulk_core.formats.provenance import Licence

UPSTREAM = "Upstream/Model-1.5B"
MADE = "org/model-1-5b-mtp"


@pytest.fixture
def swp(tmp_path: Path) -> Iterator[Publisher]:
    with WritingHub() as hub:
        yield Publisher(hub, tmp_path / "home")


def upstream(swp: Publisher, tmp_path: Path, card: str | None = None) -> str:
    """A checkpoint on the Hub; its name with its commit."""
    folder = write(tmp_path / "up", qwen(), 2, **({"card": card} if card else {}))
    swp.hub.repos[UPSTREAM] = Repo({file.name: file.read_bytes() for file in folder.iterdir()})
    return f"{UPSTREAM}@{swp.hub.repos[UPSTREAM].sha}"


def holds_token(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


def test_from_a_checkpoint_to_a_verified_sidecar(swp: Publisher, tmp_path: Path) -> None:
    """One step, with nothing said but the source and that it goes to the only organisation there is."""
    source = upstream(swp, tmp_path)
    done = swp.run("publish", source, "--org")
    assert (done.code, done.stdout) == (0, f"{swp.hub.url}/{MADE}\n"), done.stderr
    assert len(swp.hub.repo(MADE).commits) == 2
    assert card_problems(swp.hub.repo(MADE).files["README.md"].decode()) == []

    before = swp.hub.writes()
    again = swp.run("publish", source, "--org")
    assert (again.code, again.stdout) == (0, f"nothing to do: {MADE} holds this already\n")
    assert swp.hub.writes() == before

    verified = swp.run("verify", MADE, "--json")
    assert verified.answer["ok"] is True
    assert verified.answer["source"] == source

    changed = bytearray(swp.hub.repo(MADE).files["mtp.safetensors"])
    changed[-1] ^= 1
    swp.hub.repo(MADE).commit({**swp.hub.repo(MADE).files, "mtp.safetensors": bytes(changed)}, "tampered")
    refuted = swp.run("verify", MADE)
    assert refuted.code == 1
    assert "DIFFERS  tensor mtp." in refuted.stdout

    everything = "".join(run.stdout + run.stderr for run in (done, again, verified, refuted))
    assert TOKEN not in everything
    assert holds_token(swp.home) == []
    assert all(TOKEN.encode() not in content for content in swp.hub.repo(MADE).files.values())


def test_a_dry_run_says_all_and_changes_nothing(swp: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(swp.home / "x")
    told = swp.here(monkeypatch, "publish", "x", "--org", "org", "--dry-run", "--collection", "Heads")
    assert told.code == 0, told.stderr
    for words in ("1. create the public repository", "2. commit to", "3. put", "4. list", "mtp.safetensors", "sha256:"):
        assert words in told.stdout
    plan = swp.here(monkeypatch, "publish", "x", "--org", "org", "--dry-run", "--json").answer
    assert [step["step"] for step in plan["steps"]] == ["CreateRepo", "Commit", "Record"]
    assert (plan["dry_run"], plan["commit"], plan["repo"], plan["source"]) == (True, None, REPO, f"{SOURCE}@{SHA}")
    assert swp.hub.writes() == []
    assert not (swp.home / "config").exists()


def test_without_a_login(swp: Publisher) -> None:
    write_folder(swp.home / "x")
    told = swp.run("publish", "x", "--org", "org", HF_TOKEN="")
    told.assert_fails(1, "nobody is logged in", "hf auth login")
    assert swp.hub.requests == []


def test_without_the_right_to_write_nothing_is_fetched(
    swp: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = upstream(swp, tmp_path)
    swp.hub.role = "read"
    swp.here(monkeypatch, "publish", source, "--org", "org").assert_fails(
        1, "can only read", "write access to repositories of org"
    )
    assert [request.path for request in swp.hub.requests] == ["/api/whoami-v2"]


def test_a_taken_name_is_found_before_the_download(
    swp: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(swp.home / "x")
    assert swp.here(monkeypatch, "publish", "x", "--org", "org", "--name", "model-1-5b-mtp").code == 0
    source = upstream(swp, tmp_path)
    swp.here(monkeypatch, "publish", source, "--org", "org").assert_fails(1, f"was made from {SOURCE}", "--name")
    assert not any(UPSTREAM in request.path for request in swp.hub.requests)


@pytest.mark.parametrize("what", ["no head", "no licence", "torn file"])
def test_when_extracting_fails_nothing_is_created(
    swp: Publisher, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = upstream(swp, tmp_path, "# no front matter" if what == "no licence" else None)
    if what == "no head":
        folder = plain_llama(tmp_path / "plain")
        swp.hub.repos[UPSTREAM] = Repo({file.name: file.read_bytes() for file in folder.iterdir()})
        source = f"{UPSTREAM}@{swp.hub.repos[UPSTREAM].sha}"
    if what == "torn file":
        files = swp.hub.repos[UPSTREAM].files
        torn = {name: data[:-9] if name.endswith("1-of-00002.safetensors") else data for name, data in files.items()}
        swp.hub.repos[UPSTREAM] = Repo(torn)
        source = f"{UPSTREAM}@{swp.hub.repos[UPSTREAM].sha}"
    failed = swp.here(monkeypatch, "publish", source, "--org", "org")
    assert failed.code != 0
    assert "Traceback" not in failed.stderr
    assert swp.hub.writes() == []


def test_ctrl_c_during_the_upload(swp: Publisher) -> None:
    """Nothing is committed, and the next run goes on."""
    write_folder(swp.home / "x", padding=3 << 20)
    running: list[subprocess.Popen[str]] = []
    swp.hub.faults.append(Fault("PUT", "/store/.*", before=lambda: running[0].send_signal(signal.SIGINT), cut=1000))
    running.append(process := swp.start("publish", "x", "--org", "org"))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "interrupted" in stderr
    assert len(swp.hub.repo(REPO).commits) == 1
    assert swp.run("publish", "x", "--org", "org").code == 0
    assert len(swp.hub.repo(REPO).commits) == 2


def test_waits_are_told_without_addresses(swp: Publisher) -> None:
    """Those of a storage carry signatures that let anybody write."""
    write_folder(swp.home / "x")
    swp.hub.faults += [Fault("PUT", "/store/.*", cut=10), Fault("POST", "/api/repos/create", status=503)]
    told = swp.run("publish", "x", "--org", "org")
    assert told.code == 0, told.stderr
    assert "Retrying in 1s" in told.stderr
    assert "out of order (status 503); trying again in 1 s" in told.stderr
    assert "://" not in told.stderr
    assert swp.run("publish", "x", "--org", "org", "--quiet").stderr == ""


def test_a_conflict_says_what_to_do(swp: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(swp.home / "x")
    swp.hub.repos[REPO] = WritableRepo({"mtp.safetensors": b"other"})
    swp.here(monkeypatch, "publish", "x", "--org", "org").assert_fails(1, REPO, "holds something else", "--force")


def test_the_card_on_stdout_is_the_folders(tmp_path: Path) -> None:
    def card(*options: str) -> Any:
        return CliRunner().invoke(make_app(), ["card", str(tmp_path), *options], catch_exceptions=False)

    manifest = write_folder(tmp_path)
    told = card("--repo", REPO)
    assert (told.exit_code, told.stderr) == (0, "")
    assert ModelCard(told.stdout).data.base_model == manifest.source_repo
    assert f"--sidecar {REPO}" in told.stdout
    write_folder(tmp_path, licence=Licence())
    refused = card()
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "states no licence" in refused.stderr
    assert "--license-unknown" in refused.stderr
    assert card("--license-unknown").exit_code == 0


def test_the_doctor(swp: Publisher) -> None:
    told = swp.run("doctor", "--org", "--json")
    findings = {finding["name"]: finding for finding in told.answer["findings"]}
    assert findings["login"]["value"] == f"{USER}, token: write"
    assert findings["may publish"] == {"name": "may publish", "value": "to org", "ok": True, "advice": None}
    assert {"endpoint", "disk: here", "torch", "python", "huggingface-hub"} <= set(findings)
    assert told.code == (0 if told.answer["ok"] else 1)
    assert told.answer["ok"] is all(finding["ok"] for finding in findings.values())

    swp.hub.role = "read"
    refused = swp.run("doctor", "--org", "elsewhere")
    assert refused.code == 1
    assert "can only read" in refused.stdout
    nobody = swp.run("doctor", HF_TOKEN="")
    assert nobody.code == 1
    assert "hf auth login" in nobody.stdout
    assert TOKEN not in told.stdout + told.stderr + refused.stdout + refused.stderr + json.dumps(told.answer)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["publish", "a/b@c", "--org"], ["publish", "a/b@c", "--org="]),
        (["publish", "--org", "--dry-run", "x"], ["publish", "--org=", "--dry-run", "x"]),
        (["publish", "x", "--org", "me"], ["publish", "x", "--org", "me"]),
        (["publish", "x", "--org=me"], ["publish", "x", "--org=me"]),
        (["publish", "--", "--org"], ["publish", "--", "--org"]),
        (["publish", "x", "--name", "--org"], ["publish", "x", "--name", "--org="]),
        ([], []),
    ],
)
def test_an_option_may_stand_alone(given: list[str], read: list[str]) -> None:
    assert complete(given, ("--org",)) == read


@pytest.mark.parametrize("name", ["publish", "verify", "card", "doctor"])
def test_help_explains_every_option(name: str) -> None:
    """Somebody who has never published anything starts here."""
    command = get_command(make_app()).commands[name]  # type: ignore[attr-defined]
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help
            assert (
                parameter.is_flag or parameter.show_default or "efault" in parameter.help or "Without" in parameter.help
            )
        else:
            assert parameter.help
    paragraphs = inspect.cleandoc(command.help).split("\n\n")
    assert all("\n" not in paragraph for paragraph in paragraphs)  # a terminal breaks lines itself
