"""`swp catalog`: what is listed, how a model is looked up, and a catalog of one's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import ROOT, Finished
from typer.testing import CliRunner

from cli.swp import make_app
from skulk_core.formats.catalog import SidecarEntry, VindexEntry, read_catalog
from skulk_core.types import Conventions, HiddenTap

NEXT = {
    "model_type": "qwen3_next",
    "hidden_size": 2048,
    "vocab_size": 151936,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "num_experts": 512,
}
WIRED = [
    word
    for pair in ("norm_offset=1", "concat_order=hidden_first", "chain_tap=pre_norm", "position_rule=running")
    for word in ("--convention", pair)
]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this person's catalog will be."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "skulk" / "catalog.yaml"


def swp(*arguments: str | Path) -> Finished:
    result = CliRunner().invoke(make_app(), ["catalog", *map(str, arguments)], catch_exceptions=False)
    return Finished(result.exit_code, result.stdout, result.stderr)


def test_the_list_has_a_line_for_every_entry(own: Path) -> None:
    shown = swp("list")
    head, *lines = shown.stdout.splitlines()
    assert head.split() == ["kind", "base", "repo", "what", "depth", "from"]
    assert len(lines) == 21
    gemma = next(line for line in lines if "26B-A4B-it" in line)
    assert gemma.split("  ")[0] == "assistant"
    assert "1; 0 from 2 hosts" in gemma
    assert len(swp("list", "--kind", "assistant").stdout.splitlines()) == 6
    answer = swp("list", "--kind", "sidecar", "--json").answer
    assert {entry["kind"] for entry in answer["entries"]} == {"sidecar"}
    assert answer["entries"][0]["conventions"]["norm_offset"] == 1.0


def test_a_base_and_a_repository_are_shown(own: Path) -> None:
    by_base, by_repo = swp("show", "qwen/qwen3.5-27b"), swp("show", "FoxlightAI/qwen3-5-27b-mtp")
    assert by_base == by_repo
    assert "conventions:    norm_offset 1.0, concat_order embedding_first" in by_base.stdout
    assert swp("show", "Qwen/Qwen3.5-27B", "--json").answer["entries"][0]["default_depth"] == 1
    swp("show", "Qwen/Qwen3.5-28B").assert_fails(1, "Qwen/Qwen3.5-28B", "did you mean 'Qwen/Qwen3.5-27B'?")


def test_a_model_that_is_found_says_why(own: Path) -> None:
    found = swp("find", "https://huggingface.co/Qwen/Qwen3.6-27B/tree/main")
    assert found.stdout == (
        "the catalog lists Qwen/Qwen3.6-27B\nsidecar: FoxlightAI/qwen3-6-27b-mtp (qwen_mtp, depth 1)\n"
    )
    explained = swp("find", "Qwen/Qwen3.6-27B", "--explain")
    assert explained.stdout.startswith("1. listed: the catalog lists Qwen/Qwen3.6-27B\n")


def test_a_model_that_is_not_found_shows_every_step(own: Path, tmp_path: Path) -> None:
    """A shape that two models share: which of them it is made from must be said, not guessed."""
    folder = tmp_path / "my-tune"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(NEXT))
    missed = swp("find", folder)
    assert missed.code == 1
    assert [line.partition(":")[0] for line in missed.stdout.splitlines()] == [
        "1. listed",
        "2. base_model",
        "3. config",
        "4. name",
    ]
    assert "Qwen/Qwen3-Next-80B-A3B-Instruct or Qwen/Qwen3-Next-80B-A3B-Thinking" in missed.stderr
    answer = swp("find", folder, "--json")
    assert answer.code == 1
    assert len(answer.answer["candidates"]) == 2
    assert [step["outcome"] for step in answer.answer["steps"]] == ["nothing", "nothing", "ambiguous", "nothing"]
    only = swp("find", "Qwen/Qwen3.6-27B", "--kind", "vindex", "--json")
    assert only.answer["entries"] == []


def test_an_entry_of_ones_own_wins(own: Path) -> None:
    wired = [*WIRED, "--convention", "hidden_tap=pre_norm"]
    asked = ("add", "Qwen/Qwen3.5-27B", "me/better-mtp", "--layout", "qwen_mtp", "--licence", "mit", *wired)
    added = swp(*asked, "--depth", "3", "--hosts-depth", "2=1", "--hosts-depth", "4=0", "--source-sha", "a" * 40)
    assert (added.code, added.stdout) == (0, "")
    assert added.stderr == f"added: sidecar me/better-mtp of Qwen/Qwen3.5-27B, in {own}\n"
    (entry,) = read_catalog(own)
    assert entry == SidecarEntry(
        base="Qwen/Qwen3.5-27B",
        repo="me/better-mtp",
        licence="mit",
        layout="qwen_mtp",
        source_sha="a" * 40,
        conventions=Conventions(1.0, "hidden_first", HiddenTap.PRE_NORM, "pre_norm", "running"),  # type: ignore[arg-type]
        default_depth=3,
        depth_by_hosts=((2, 1), (4, 0)),
    )
    assert "me/better-mtp" in swp("find", "Qwen/Qwen3.5-27B").stdout
    assert swp("list").stdout.splitlines()[1].endswith("yours")
    swp(*asked).assert_fails(1, "lists another sidecar", "--force")
    replaced = swp(*asked, "--force", "--json").answer
    assert (replaced["change"], replaced["path"]) == ("replaced", str(own))
    assert read_catalog(own)[0].source_sha is None


def test_a_vindex_and_a_fingerprint_are_added(own: Path, tmp_path: Path) -> None:
    asked = ("add", "me/Big", "me/big-vindex", "--kind", "vindex", "--licence", "mit")
    assert swp(*asked, "--quant", "q4k", "--slice", "expert-server", "--program", "larql 0.3.1").code == 0
    (tmp_path / "config.json").write_text(json.dumps({**NEXT, "hidden_size": 77}))
    asked = ("add", "me/Big", "me/big-mtp", "--layout", "qwen_mtp", "--licence", "mit")
    assert swp(*asked, "--fingerprint-of", tmp_path).code == 0
    vindex, sidecar = read_catalog(own)
    assert vindex == VindexEntry(
        base="me/Big",
        repo="me/big-vindex",
        licence="mit",
        quant="q4k",
        slice="expert-server",
        program="larql 0.3.1",
    )
    assert sidecar.fingerprint is not None
    # what was taken down is what a model of this shape is known by
    assert swp("find", tmp_path, "--json").answer["base"] == "me/Big"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Big", "me/b", "--layout", "x"), ("BASE Big", "OWNER/NAME")),
        (("me/a", "me/b"), ("--layout", "must be given for a sidecar")),
        (("me/a", "me/b", "--layout", "x", "--quant", "q4k"), ("--quant q4k", "a sidecar has none")),
        (("me/a", "me/b", "--kind", "vindex", "--depth", "1"), ("--depth 1", "a vindex has none")),
        (("me/a", "me/b", "--layout", "x", *WIRED), ("hidden_tap must be given too",)),
        (("me/a", "me/b", "--layout", "x", "--revision", "main"), ("--revision main", "40 hexadecimal digits")),
        (("me/a", "me/b", "--layout", "x", "--hosts-depth", "0=1"), ("--hosts-depth 0=1", "N=DEPTH")),
        (("me/a", "me/b", "--layout", "x\x1b[2J"), ("--layout", "must be a line of text")),
        (("me/a", "me/b", "--layout", "x", "--fingerprint-of", "."), ("--fingerprint-of", "has no config.json")),
    ],
)
def test_a_mistaken_entry_is_not_written(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    swp("add", *arguments, "--licence", "mit").assert_fails(2, *words)
    assert not own.exists()


def test_catalogs_are_checked(own: Path, tmp_path: Path) -> None:
    assert swp("validate").stdout.endswith("catalog.yaml: valid, 16 sidecar, 5 assistant\n")
    swp("add", "me/a", "me/b", "--licence", "mit", "--kind", "vindex")
    assert [file["path"] for file in swp("validate", "--json").answer["files"]][1:] == [str(own)]
    broken = tmp_path / "broken.yaml"
    broken.write_text("schema: 1\nentries:\n- {kind: vidnex, base: a/b, repo: a/c, licence: mit}\n")
    swp("validate", broken).assert_fails(1, str(broken), "line 3, entries[0].kind", "did you mean 'vindex'?")
    swp("validate", tmp_path / "nope.yaml").assert_fails(1, "No such file")


def test_the_program_itself(own: Path, nobody: str) -> None:
    """As a process, without a Hub: a quantised copy is known by its name."""
    finished = subprocess.run(
        [sys.executable, "-m", "cli.swp", "catalog", "find", "mlx-community/Qwen3.5-9B-4bit", "--explain"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": nobody, "HF_HOME": str(own.parent / "hf")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "2. base_model: the Hub cannot be reached" in finished.stdout
    assert finished.stdout.endswith("sidecar: FoxlightAI/qwen3-5-9b-base-mtp (qwen_mtp, depth 1)\n")
