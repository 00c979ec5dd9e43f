"""`skulk card`: how a model is run here, kept in the person's own catalog beside everything they wrote there."""

import json
import sys
from pathlib import Path

import pytest
from cli_checkpoints import demo_copy, demo_with_own_head
from cli_runner import in_process

from skulk_core.formats.cards import Card, read_cards

WRITTEN = """\
# mine
schema: 1
entries:
  - kind: sidecar  # a head
    base: me/A
    repo: me/a-mtp
    layout: qwen_mtp
    licence: mit
    default_depth: 2
    depth_by_hosts: {2: 1}
"""


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "config" / "skulk" / "catalog.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(WRITTEN)
    return file


def shown(*arguments: str | Path) -> dict[str, tuple[object, str]]:
    """Every setting's value and who says so."""
    done = in_process("card", "show", *arguments, "--json")
    assert done.code == 0, done.stderr
    names = ("depth", "sidecar", "dtype", "head_precision")
    return {name: (done.answer[name]["value"], done.answer[name]["because"]) for name in names}


def test_a_card_says_more_than_an_entry_and_keeps_the_rest(catalog: Path) -> None:
    """What somebody wrote into their catalog by hand would be lost, or what they set not followed."""
    assert (shown("me/A")["depth"][0], shown("me/A", "--hosts", "3")["depth"][0]) == (2, 1)
    assert in_process("card", "set", "me/A", "--depth", "4", "--head-precision", "8bit").code == 0
    assert in_process("card", "set", "me/A", "--depth", "0", "--hosts", "3").code == 0
    assert catalog.read_text().startswith(WRITTEN)
    (card,) = read_cards(catalog)
    assert card == Card(model="me/A", default_depth=4, depth_by_hosts=((3, 0),), head_precision="8bit")
    depths = [shown("me/A", "--hosts", str(hosts))["depth"][0] for hosts in (1, 2, 3, 5)]
    assert depths == [4, 4, 0, 0]
    assert shown("me/A")["depth"] == (4, "your card")
    assert shown("me/A")["head_precision"] == ("8bit", "your card")
    # hosts may be too far apart for what is best on fewer, or not
    assert in_process("card", "set", "me/A", "--depth", "auto", "--hosts", "4").code == 0
    assert [shown("me/A", "--hosts", str(hosts))["depth"][0] for hosts in (3, 4)] == [0, "auto"]


def test_what_is_unset_is_gone_and_an_empty_card_too(catalog: Path) -> None:
    in_process("card", "set", "me/A", "--depth", "4", "--dtype", "float32")
    in_process("card", "set", "me/B", "--depth", "auto")
    in_process("card", "set", "me/A", "--unset", "depth", "--unset", "dtype")
    assert [card.model for card in read_cards(catalog)] == ["me/B"]
    assert shown("me/A")["depth"] == (2, "the catalog, of me/A")
    assert shown("me/B")["depth"] == ("auto", "your card")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "says nothing"),
        (("--depth", "deep"), "--depth deep: must be a number or auto"),
        (("--sidecar", "./nowhere"), "no such file or folder"),
        (("--depth", "-1"), "at least 0"),
        (("--dtype", "float33"), "float32"),
        (("--head-precision", "9bit"), "8bit"),
        (("--unset", "depht"), "did you mean 'depth'"),
        (("--depth", "1", "--hosts", "0"), "at least 1"),
    ],
)
def test_what_cannot_be_kept_is_refused(catalog: Path, arguments: tuple[str, ...], says: str) -> None:
    done = in_process("card", "set", "me/A", *arguments)
    assert done.code != 0
    assert says in done.stderr
    assert catalog.read_text() == WRITTEN


def test_what_is_shown_is_what_a_run_takes(catalog: Path, tmp_path: Path) -> None:
    """A card that names another head, depth or precision than the run uses is worse than none."""
    whole, bare = demo_with_own_head(tmp_path / "whole"), demo_copy(tmp_path / "bare")
    beside = demo_copy(tmp_path / "beside")
    (beside / "mtp.safetensors").write_bytes(_demo_sidecar().read_bytes())
    assert shown(beside)["sidecar"] == (str(beside / "mtp.safetensors"), "beside the checkpoint")
    taken = in_process("run", beside, "x", "--max-tokens", "4", "--draft-depth", "1", "--json").answer["sidecar"]
    assert taken == shown(beside)["sidecar"][0]
    for model in ("demo", bare):
        said = shown(model)
        answer = in_process("run", model, "x", "--max-tokens", "4", "--json").answer
        assert (answer["sidecar"], answer["stats"]["draft_depth"]) == (said["sidecar"][0], said["depth"][0]), model
    carried = in_process("run", whole, "x", "--max-tokens", "4", "--draft-depth", "1", "--json").answer["sidecar"]
    assert shown(whole)["sidecar"] == (carried, "the checkpoint carries it")
    assert shown(whole)["depth"] == ("auto", "nobody says otherwise; chosen round by round")
    assert shown(bare)["depth"] == (0, "no draft head is known")
    assert shown("me/A")["sidecar"][0] == "me/a-mtp"
    assert in_process("card", "set", bare, "--sidecar", _demo_sidecar(), "--dtype", "bfloat16").code == 0
    assert shown(bare)["sidecar"] == (str(_demo_sidecar()), "your card")
    assert shown(bare)["dtype"] == ("bfloat16", "your card")
    at_home = tmp_path / "head.safetensors"
    at_home.write_bytes(_demo_sidecar().read_bytes())
    assert in_process("card", "set", "demo", "--sidecar", at_home).code == 0
    at_home.unlink()
    assert shown("demo")["sidecar"] == (str(at_home), "your card, but: no such file or folder")
    in_process("run", "demo", "x").assert_fails(2, "your card of demo", "no such file", "skulk card edit demo")
    text = in_process("card", "show", bare).stdout
    for line in (f"sidecar           {_demo_sidecar()}  (your card)", "dtype             bfloat16  (your card)"):
        assert line in text


def test_a_card_is_followed_by_run(catalog: Path, tmp_path: Path) -> None:
    """A measured depth that nothing reads is of no use."""
    folder = demo_copy(tmp_path / "model")
    plain = in_process("run", "demo", "x", "--max-tokens", "4", "--json").answer
    assert plain["stats"]["draft_depth"] == 4
    assert in_process("card", "set", "demo", "--depth", "2").code == 0
    assert in_process("run", "demo", "x", "--max-tokens", "4", "--json").answer["stats"]["draft_depth"] == 2
    # what the command line says wins
    given = in_process("run", "demo", "x", "--max-tokens", "4", "--draft-depth", "1", "--json").answer
    assert given["stats"]["draft_depth"] == 1
    # as `skulk tune` leaves it where drafts do not pay: nobody asked for plain decoding on this command line
    assert in_process("card", "set", "demo", "--depth", "0").code == 0
    plain = in_process("run", "demo", "x", "--max-tokens", "4").stderr
    assert "depth 0: your card of demo says 0; `skulk card set demo --depth N` changes it" in plain
    assert in_process("card", "set", folder, "--depth", "3", "--sidecar", _demo_sidecar()).code == 0
    (_, card) = read_cards(catalog)
    assert card.model == str(folder.resolve())
    found = in_process("run", folder, "x", "--max-tokens", "4", "--json").answer
    assert found["stats"]["draft_depth"] == 3
    assert found["sidecar"] is not None


def test_an_editor_opens_the_card(catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As $EDITOR is set: what it leaves is checked like anything else, and nothing is written that is wrong."""
    editor = tmp_path / "editor.py"
    editor.write_text("import sys, pathlib; p = pathlib.Path(sys.argv[-1]); p.write_text(p.read_text() + sys.argv[1])")

    def edit(more: str) -> tuple[int, str]:
        monkeypatch.setenv("VISUAL", f"{sys.executable} {editor} {json.dumps(more)}")
        done = in_process("card", "edit", "me/A")
        return done.code, done.stderr

    assert edit("default_depth: 3 # $EDITOR")[0] == 0
    assert read_cards(catalog)[0].default_depth == 3
    before = catalog.read_text()
    code, said = edit("dtyp: float32")
    assert code != 0
    assert "did you mean 'dtype'" in said
    assert catalog.read_text() == before
    # what was typed is not lost: it is named, there, and what the editor opens next
    (kept,) = catalog.parent.glob("card-*.yaml")
    assert str(kept) in said.replace("\n", "")
    assert "skulk card edit me/A" in said
    assert "dtyp: float32" in kept.read_text()
    editor.write_text(
        "import sys, pathlib; p = pathlib.Path(sys.argv[-1]); p.write_text(p.read_text().replace(*sys.argv[1:3]))"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} {editor} dtyp: dtype:")
    assert in_process("card", "edit", "me/A").code == 0
    assert read_cards(catalog)[0] == Card(model="me/A", default_depth=3, dtype="float32")
    before = catalog.read_text()
    assert not kept.exists()
    monkeypatch.setenv("VISUAL", "no-such-editor")
    in_process("card", "edit", "me/A").assert_fails(1, "no-such-editor", "VISUAL or EDITOR")
    assert not kept.exists()
    monkeypatch.setenv("VISUAL", f"{sys.executable} -c 'raise SystemExit(3)'")
    done = in_process("card", "edit", "me/A")
    assert done.code != 0
    assert "status 3" in done.stderr
    assert catalog.read_text() == before


def _demo_sidecar() -> Path:
    from skulk_core.runtime.resources import demo_sidecar

    return demo_sidecar()
