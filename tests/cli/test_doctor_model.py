"""A sidecar that says nothing of itself: `skulk doctor MODEL` measures it, `skulk run` measures it once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli_checkpoints import DEMO, Tensor, read_file, sidecar, write_file
from cli_runner import Program, in_process
from hub_loopback import LoopbackHub, Repo

RELEASED = {
    "norm_offset": 1.0,
    "concat_order": "embedding_first",
    "hidden_tap": "post_norm",
    "chain_tap": "post_norm",
    "position_rule": "running",
}


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    return sidecar(tmp_path / "mtp.safetensors", version=None)


def dead(tensor: Tensor) -> Tensor:
    """The same values, each somewhere else."""
    middle = len(tensor.data) // 2 + 2
    return replace(tensor, data=tensor.data[middle:] + tensor.data[:middle])


def test_the_table_of_a_silent_sidecar(skulk: Program, silent: Path) -> None:
    shown = skulk.run("doctor", "demo", "--sidecar", silent, "--json")
    assert (shown.code, shown.stderr) == (0, "")
    answer = shown.answer
    assert (answer["schema"], answer["model"], answer["sidecar"]) == (1, "demo", str(silent))
    assert (answer["picked"], answer["stated"]) == (RELEASED, None)
    assert len(answer["candidates"]) == 16
    (picked,) = [candidate for candidate in answer["candidates"] if candidate["picked"]]
    assert picked["conventions"] == RELEASED
    first, second = picked["agreement"]
    assert first > 0.6
    assert second > 0.6
    worst = answer["candidates"][-1]
    assert len(worst["agreement"]) == 1
    assert worst["agreement"][0] < 0.1 > answer["chance"]


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to see what is printed."""
    monkeypatch.setattr("skulk_core.heads.probe._ROWS_WANTED", 60)


@pytest.mark.usefixtures("few_rows")
def test_what_the_file_says_is_told_beside_it() -> None:
    shown = in_process("doctor", "demo")
    assert shown.code == 0
    text = " ".join(shown.stdout.split())
    assert "✓ picked" in text
    assert "~ alike" in text
    assert "comes with the demo" in text
    assert "picked: norm_offset 1.0, concat_order embedding_first, hidden_tap post_norm" in text
    assert text.endswith("stated (sidecar metadata): the same")


@pytest.mark.usefixtures("few_rows")
def test_a_dead_head_is_told_with_its_figures(tmp_path: Path, silent: Path) -> None:
    tensors, _ = read_file(silent)
    file = write_file(tmp_path / "dead.safetensors", {name: dead(tensor) for name, tensor in tensors.items()})
    shown = in_process("doctor", "demo", "--sidecar", file)
    assert shown.code == 1
    assert "picked: none" in shown.stdout
    assert "stated: nothing" in shown.stdout
    assert "no candidate is clearly better than chance (best " in shown.stderr
    assert "the head is dead, or belongs to another model" in shown.stderr


def test_a_sidecar_without_a_model(silent: Path) -> None:
    in_process("doctor", "--sidecar", silent).assert_fails(2, "--sidecar", "belongs to a model")


@pytest.fixture
def hub(silent: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos["owner/tiny"] = Repo({path.name: path.read_bytes() for path in DEMO.iterdir()}, card={})
        hub.repos["someone/a-head"] = Repo({"mtp.safetensors": silent.read_bytes()})
        yield hub


def test_a_run_measures_once_and_remembers(hub: LoopbackHub, skulk: Program, tmp_path: Path) -> None:
    asked = ("run", "owner/tiny", "Return the number", "--max-tokens", "8", "--sidecar", "someone/a-head", "--verbose")
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    kept = tmp_path / "config" / "skulk" / "probes.json"
    first = skulk.run(*asked, **settings)
    assert first.code == 0, first.stderr
    (line,) = [line for line in first.stderr.splitlines() if "does not say how it is wired" in line]
    assert line.startswith("someone/a-head")
    assert "measured: norm_offset 1.0, concat_order embedding_first" in line
    assert "of first drafts right (chance" in line
    assert line.endswith(f"kept in {kept}")
    assert not kept.with_name("catalog.yaml").exists()
    again = skulk.run(*asked, **settings)
    assert (again.code, again.stdout) == (0, first.stdout)
    assert "measured:" not in again.stderr
    said = " ".join(again.stderr.split())
    assert "conventions from a measurement on this machine" in said
    assert "ways apart, of which this one is nearest to the releases: norm_offset 1.0" in said
