"""Making a vindex with a stand-in for larql: the pinned commit, what is recorded, what is left when it goes wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from cli_runner import ROOT
from huggingface_hub import ModelCard
from larql_standin import FILES, MODEL, Bench, bench, write_larql

from skulk_core.errors import ProgramError, ProgramMissing, VindexError
from skulk_core.formats.provenance import Licence
from skulk_core.formats.vindex import read_vindex
from swp.vindex import open_whole
from swp.vindex_program import find_program, identify

OUT = "tiny-model-1b-q4k-vindex"
MADE = ["LICENSE", "NOTICE.txt", "README.md", "gate.bin", "index.json", "layers/0.bin", "provenance.json"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One vindex, made once for the tests that only look at it."""
    with bench(tmp_path_factory.mktemp("made")) as desk:
        finished = desk.run("vindex", "extract", MODEL, "--json")
        assert finished.code == 0, finished.stderr
        assert finished.answer["source"] == f"{MODEL}@{desk.sha}"
        assert "larql says something" in finished.stderr
        yield desk


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_everything_is_in_one_folder_and_nothing_beside_it(made: Bench) -> None:
    assert made.left() == [OUT]
    assert names(made.home / OUT) == MADE
    for name in ("LICENSE", "NOTICE.txt"):
        assert (made.home / OUT / name).read_bytes() == FILES[name]


def test_larql_sees_the_pinned_commit_and_no_login(made: Bench) -> None:
    """A program that takes whichever commit of a model lies in the Hub's cache must find one only."""
    (run,) = made.larql.runs
    assert run["arguments"] == ["extract", MODEL, "-o", "made.vindex", "--quant", "q4k"]
    assert set(run["environment"]) >= {"HF_HOME", "HF_HUB_CACHE"}
    assert run["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in run["environment"]
    assert (made.home / OUT / "layers" / "0.bin").read_bytes() == FILES["model.safetensors"]


def test_the_manifest_has_every_file_and_the_program(made: Bench) -> None:
    manifest = read_vindex(made.home / OUT)
    assert [file.name for file in manifest.files] == [n for n in MADE if n not in ("README.md", "provenance.json")]
    assert str(manifest.program) == "larql 0.3.1 (stand-in)"
    assert manifest.program.nbytes == made.larql.path.stat().st_size
    assert manifest.commands == (("larql", "extract", MODEL, "-o", "made.vindex", "--quant", "q4k"),)
    assert manifest.licence == Licence("other", "tiny-licence", "LICENSE")
    assert (manifest.source_sha, manifest.quant, manifest.slice) == (made.sha, "q4k", "whole")


def test_nothing_of_this_machine_is_in_what_is_published(made: Bench) -> None:
    for name in names(made.home / OUT):
        assert str(made.home).encode() not in (made.home / OUT / name).read_bytes(), name


def test_the_card_is_the_hubs_and_says_that_it_is_unproven(made: Bench) -> None:
    card = ModelCard.load(made.home / OUT / "README.md")
    assert card.data.to_dict() == {
        "base_model": MODEL,
        "base_model_relation": "quantized",
        "library_name": "larql",
        "tags": ["vindex", "larql", "q4k"],
        "license": "other",
        "license_name": "tiny-licence",
        "license_link": "LICENSE",
    }
    assert "**Unproven.**" in card.text
    for text in (
        made.sha,
        "layers/0.bin",
        "swp vindex verify",
        *(f.sha256 for f in read_vindex(made.home / OUT).files),
    ):
        assert text in card.text


def test_again_does_nothing_and_again_elsewhere_gives_the_same_bytes(made: Bench) -> None:
    made.larql.forget()
    again = made.run("vindex", "extract", f"{MODEL}@{made.sha}", "--out", OUT)
    assert (again.code, made.larql.runs) == (0, [])
    elsewhere = made.run("vindex", "extract", MODEL, "--out", "deep/er/copy")
    assert elsewhere.code == 0, elsewhere.stderr
    copy = made.home / "deep" / "er" / "copy"
    assert {name: (copy / name).read_bytes() for name in names(copy)} == {
        name: (made.home / OUT / name).read_bytes() for name in MADE
    }


def test_a_slice_is_cut_from_a_whole_one(made: Bench) -> None:
    """Of a model, which is extracted first, or of a vindex that is there already: the same bytes."""
    made.larql.forget()
    finished = made.run("vindex", "extract", MODEL, "--slice", "expert-server", "--quant", "q8k", "--out", "one/cut")
    assert finished.code == 0, finished.stderr
    assert [run["arguments"] for run in made.larql.runs] == [
        ["extract", MODEL, "-o", "whole.vindex", "--quant", "q8k"],
        ["slice", "whole.vindex", "-o", "made.vindex", "--preset", "expert-server"],
    ]
    manifest = read_vindex(made.home / "one" / "cut")
    assert (manifest.slice, manifest.quant) == ("expert-server", "q8k")
    assert [command[1] for command in manifest.commands] == ["extract", "slice"]
    assert names(made.home / "one") == [f"cut/{name}" for name in MADE]

    made.larql.forget()
    finished = made.run("vindex", "extract", made.home / OUT, "--slice", "expert-server", "--out", "two/cut")
    assert finished.code == 0, finished.stderr
    assert [run["arguments"][0] for run in made.larql.runs] == ["slice"]
    cut = read_vindex(made.home / "two" / "cut")
    assert (cut.source_sha, cut.quant, cut.slice) == (made.sha, "q4k", "expert-server")
    assert [command[1] for command in cut.commands] == ["extract", "slice"]
    assert (made.home / "two" / "cut" / "gate.bin").read_bytes() == (
        made.home / "one" / "cut" / "gate.bin"
    ).read_bytes()
    # the whole one is as it was
    assert names(made.home / OUT) == MADE
    with pytest.raises(VindexError, match="slices are cut from a whole vindex"):
        open_whole(made.home / "two" / "cut", Event())


def test_the_plan_names_the_commit_and_every_command(made: Bench) -> None:
    made.larql.forget()
    shown = made.run("vindex", "plan", MODEL, "--slice", "client")
    assert shown.code == 0, shown.stderr
    for text in (
        f"{MODEL}@{made.sha}",
        "larql 0.3.1 (stand-in)",
        f"hf download {MODEL} --revision {made.sha}",
        f"larql extract {MODEL} -o whole.vindex --quant q4k",
        "larql slice whole.vindex -o made.vindex --preset client",
        "tiny-model-1b-q4k-client-vindex",
    ):
        assert text in shown.stdout
    planned = made.run("vindex", "plan", MODEL, "--json", PATH="/nowhere").answer
    assert (planned["source"], planned["program"]) == (f"{MODEL}@{made.sha}", None)
    assert planned["commands"] == [["larql", "extract", MODEL, "-o", "made.vindex", "--quant", "q4k"]]
    assert made.larql.runs == []
    assert OUT in made.left()


WRONG = {
    "crash": ("ProgramError", "extract failed (SIGSEGV)"),
    "nothing": ("VindexError", "made no vindex: there is no index.json"),
    "link": ("VindexError", "links and special files cannot be published; elsewhere"),
    "card": ("VindexError", "made a file of a name that is ours; README.md"),
    "licence": ("VindexError", "larql made another file than upstream's; LICENSE"),
    "wrong": ("VindexError", "was made wrong; gate.bin has the sha256"),
    "garbled": ("VindexError", "index.json cannot be read"),
}


@pytest.fixture(scope="module")
def went_wrong(made: Bench) -> dict[str, tuple[str, str, list[str]]]:
    """Every kind of failure, in one process: the error and what was left."""
    process = subprocess.run(
        [sys.executable, ROOT / "tests" / "vindex_client.py", made.larql.path, MODEL, *WRONG],
        env=made.environment({}),
        cwd=made.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    made.larql.set("")
    answers: dict[str, tuple[str, str, list[str]]] = json.loads(process.stdout)
    return answers


@pytest.mark.parametrize("mode", WRONG)
def test_what_goes_wrong_is_named_and_leaves_nothing(
    went_wrong: dict[str, tuple[str, str, list[str]]], mode: str
) -> None:
    kind, message, left = went_wrong[mode]
    assert kind == WRONG[mode][0]
    assert WRONG[mode][1] in message
    assert left == []


def test_a_failure_of_larql_ends_the_program(made: Bench) -> None:
    made.larql.set("fail")
    finished = made.run("vindex", "extract", MODEL, "--out", "failed")
    made.larql.set("")
    finished.assert_fails(1, "larql warns", "extract failed (exit status 3)", "`swp vindex plan` shows the commands")
    assert not [name for name in made.left() if "failed" in name]


def test_without_larql_it_says_where_to_get_it(made: Bench) -> None:
    nowhere = made.run("vindex", "extract", MODEL, "--out", "x", PATH="/nowhere")
    nowhere.assert_fails(1, "larql: is not on PATH", "https://github.com/chrishayuk/larql", "--program PATH")


def test_a_program_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ProgramMissing, match="larql: is not on PATH"):
        find_program(None)
    with pytest.raises(ProgramMissing, match="is not a file that can be executed"):
        find_program(tmp_path)
    larql = write_larql(tmp_path / "bin")
    assert find_program(None) == larql.path
    assert str(identify(larql.path)) == "larql 0.3.1 (stand-in)"
    assert identify(larql.path) == identify(larql.path)
    with pytest.raises(ProgramError, match="does not say its version"):
        identify(write_larql(tmp_path / "mute", version="larql").path)
    with pytest.raises(ProgramError, match="does not say its version"):
        identify(write_larql(tmp_path / "loud", version="larql 1\x1b[2J").path)


def test_ctrl_c_ends_larql_and_all_it_started(desk: Bench) -> None:
    """Also one that does not listen: its folder, its children and itself are gone when we are."""
    desk.larql.set("hang")
    process = desk.start("vindex", "extract", MODEL)
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "hanging\n":
        assert line, "ended before it was stopped"
    process.send_signal(signal.SIGINT)
    # it ignores SIGTERM, and to wait until it is killed would be long for a test
    os.kill(int(Path(f"{desk.larql.path}.child").read_text().split()[0]), signal.SIGKILL)
    # this reads until nobody holds our stderr: neither larql nor the child it left to itself
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert desk.left() == []


def test_what_a_killed_run_left_is_removed_by_the_next(desk: Bench) -> None:
    desk.larql.set("hang")
    process = desk.start("vindex", "extract", MODEL)
    assert process.stderr is not None
    while (line := process.stderr.readline()) != "hanging\n":
        assert line
    process.kill()
    process.wait(60)
    for pid in Path(f"{desk.larql.path}.child").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    process.communicate()
    assert desk.left() != []
    desk.larql.set("")
    finished = desk.run("vindex", "extract", MODEL)
    assert finished.code == 0, finished.stderr
    assert desk.left() == [OUT]


def test_a_target_that_holds_something_else_is_not_touched(made: Bench) -> None:
    (made.home / "mine").mkdir()
    (made.home / "mine" / "thesis.txt").write_text("years of work")
    refused = made.run("vindex", "extract", MODEL, "--out", "mine")
    refused.assert_fails(2, "is not empty, and holds no vindex of ours")
    refused = made.run("vindex", "extract", MODEL, "--out", OUT, "--quant", "q8k")
    refused.assert_fails(2, "holds another vindex")
    assert names(made.home / "mine") == ["thesis.txt"]
    assert names(made.home / OUT) == MADE


def test_two_at_once_make_one(desk: Bench) -> None:
    both = [desk.start("vindex", "extract", MODEL, "--json") for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert len(desk.larql.runs) == 1
    assert desk.left() == [OUT]
    assert json.loads(ended[0][0]) == json.loads(ended[1][0])


def test_a_model_without_a_licence_is_refused_before_anything_is_done(desk: Bench) -> None:
    desk.hub.repos[MODEL].files["README.md"] = b"# No front matter\n"
    refused = desk.run("vindex", "extract", MODEL)
    refused.assert_fails(2, "states no licence", "--license-unknown")
    assert (desk.left(), desk.larql.runs) == ([], [])
