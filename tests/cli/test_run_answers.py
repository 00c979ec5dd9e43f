"""What a run prints when all is well: the text, the figures, the JSON object, and where the head was found."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cli_checkpoints import DEMO, DEMO_SIDECAR, demo_copy, demo_with_own_head, read_file, write_file
from cli_runner import Finished, OnTerminal, Program, in_process
from hub_loopback import WAIT_S, LoopbackHub, Repo
from mlx_lm.utils import load_tokenizer

from skulk_core.hub.headers import INDEX_FILE

PROMPT = "Return the number of elements"
SHORT = (PROMPT, "--max-tokens", "40")
TEMPLATE = "{% for message in messages %}Question: {{ message.content }}\nAnswer:{% endfor %}"
STATS = {
    "prompt_tokens": int,
    "prefill_s": float,
    "decode_s": float,
    "decode_tokens_per_s": float,
    "rounds": int,
    "drafted": int,
    "accepted": int,
    "acceptance": list,
    "tokens_per_round": float,
    "draft_depth": int,
    "synchronisations": int,
    "extra_passes": int,
}


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return in_process("run", "demo", *SHORT, "--json").answer


def test_a_prompt_on_stdin_in_another_folder(skulk: Program, answer: dict[str, Any], tmp_path: Path) -> None:
    result = skulk.run("run", "demo", "-", *SHORT[1:], "--verbose", stdin=PROMPT.encode(), cwd=tmp_path)
    assert (result.code, result.stdout) == (0, answer["text"] + "\n")
    used, model, head, conventions, figures = result.stderr.splitlines()
    assert used.startswith("BLAS: ")
    assert model.startswith("model: demo (")
    assert head.startswith("head: demo sidecar (comes with the demo)")
    assert conventions.startswith("conventions from sidecar metadata: norm_offset 1.0, concat_order embedding_first")
    assert figures.startswith("40 tokens")


def test_the_demo_alone_shows_its_prompt_and_ends_before_it_repeats_itself() -> None:
    shown = in_process("run", "demo", "--json")
    prompt, _ = shown.stderr.splitlines()
    assert prompt.startswith("prompt: The ")
    words = shown.answer["text"].split()
    assert len(set(zip(words, words[1:], words[2:], strict=False))) > 0.7 * len(words)
    assert shown.answer["stats"]["accepted"] > shown.answer["stats"]["rounds"]


def test_one_line_of_figures(answer: dict[str, Any]) -> None:
    shown = in_process("run", "demo", *SHORT)
    assert shown.stdout == answer["text"] + "\n"
    (line,) = shown.stderr.splitlines()
    tokens, speed, per_round, accepted, depth = line.split(" · ")
    assert tokens == "40 tokens"
    assert speed.endswith(" tok/s")
    assert per_round.endswith(" tokens a round")
    assert accepted.startswith("accepted by position ")
    assert accepted.count("%") == 4
    assert depth == "depth 4"
    assert in_process("run", "demo", *SHORT, "--quiet") == Finished(0, shown.stdout, "")


def test_the_line_says_only_what_is_known() -> None:
    """After one token there were no rounds, and no speed but that of the prompt."""
    assert in_process("run", "demo", PROMPT, "--max-tokens", "1").stderr == "1 token · depth 4\n"


def test_a_byte_order_mark_is_no_part_of_the_prompt(skulk: Program, answer: dict[str, Any]) -> None:
    marked = skulk.run("run", "demo", "-", *SHORT[1:], "--json", stdin=b"\xef\xbb\xbf" + PROMPT.encode())
    assert marked.answer["tokens"] == answer["tokens"]


def test_a_head_whose_drafts_are_never_right_is_told_of(tmp_path: Path) -> None:
    """Its file says all that is asked of it, and its numbers are none."""
    tensors, said = read_file(DEMO_SIDECAR)
    name = "mtp.norm.weight"
    broken = {**tensors, name: replace(tensors[name], data=b"\xc0\x7f" * (len(tensors[name].data) // 2))}
    dead = write_file(tmp_path / "mtp.safetensors", broken, said)
    asked = ("run", "demo", PROMPT, "--sidecar", dead, "--draft-depth", "1")
    _, told = in_process(*asked, "--max-tokens", "20").stderr.splitlines()
    assert told.startswith("none of 18 first drafts was right: ")
    assert "`skulk doctor demo --sidecar S`" in told
    # too few to tell
    assert len(in_process(*asked, "--max-tokens", "9").stderr.splitlines()) == 1


def test_the_json_object(answer: dict[str, Any]) -> None:
    assert list(answer)[:3] == ["schema", "model", "sidecar"]
    assert (answer["schema"], answer["model"], answer["sidecar"]) == (1, "demo", "demo sidecar")
    assert (answer["finish_reason"], answer["plain_because"]) == ("length", None)
    assert len(answer["tokens"]) == 40
    # what it began with included: the text can be put behind its prompt
    tokenizer = load_tokenizer(DEMO)
    assert answer["text"] == tokenizer.decode(answer["tokens"])
    assert PROMPT + answer["text"] == tokenizer.decode([*tokenizer.encode(PROMPT), *answer["tokens"]])
    stats = answer["stats"]
    assert {name: type(value) for name, value in stats.items()} == STATS
    assert stats["rounds"] < 39
    assert stats["accepted"] + stats["rounds"] == 39  # the first token belongs to no round
    assert len(stats["acceptance"]) == stats["draft_depth"] == 4
    assert stats["extra_passes"] == 0


def test_speculation_changes_speed_and_never_the_text(answer: dict[str, Any]) -> None:
    shown = in_process("run", "demo", *SHORT, "--json", "--draft-depth", "0")
    plain = shown.answer
    assert (plain["tokens"], plain["text"]) == (answer["tokens"], answer["text"])
    assert (plain["stats"]["rounds"], plain["sidecar"]) == (39, None)
    assert shown.stderr.endswith(" · depth 0: plain decoding was asked for\n")


def test_a_checkpoint_that_carries_its_own_head_uses_it_unless_another_is_named(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    folder = demo_with_own_head(tmp_path / "model")
    own = in_process("run", folder, *SHORT, "--json", "--draft-depth", "4").answer
    assert own["sidecar"] == str(folder)
    assert own["stats"]["acceptance"] == answer["stats"]["acceptance"]
    named = in_process("run", folder, *SHORT, "--json", "--sidecar", DEMO_SIDECAR).answer
    assert named["sidecar"] == str(DEMO_SIDECAR)
    assert named["tokens"] == own["tokens"] == answer["tokens"]


@pytest.mark.parametrize("name", ["mtp.safetensors", "model-mtp-00001-of-00001.safetensors"])
def test_a_head_in_a_file_beside_the_model_is_taken(answer: dict[str, Any], name: str, tmp_path: Path) -> None:
    """As quantised downloads have it that kept a head, in BF16; nobody should have to name what lies there."""
    folder = demo_copy(tmp_path / "model")
    shutil.copy(DEMO_SIDECAR, folder / name)
    shown = in_process("run", folder, *SHORT, "--json", "--draft-depth", "4", "--verbose")
    assert shown.answer["sidecar"] == str(folder / name)
    assert "(beside the checkpoint)" in shown.stderr
    assert shown.answer["stats"]["acceptance"] == answer["stats"]["acceptance"]
    assert shown.answer["tokens"] == answer["tokens"]
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    in_process("run", folder, *SHORT).assert_fails(1, f"{name}: a git-lfs pointer")
    assert in_process("run", folder, *SHORT, "--sidecar", DEMO_SIDECAR, "--max-tokens", "2").code == 0


def test_a_folder_and_files_with_names_that_mlx_lm_would_not_find(
    answer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are a pattern to it, and weights are `model*`; the index says which files are the model's."""
    folder = demo_copy(tmp_path / "mödel [x] *1")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model-old.safetensors").write_bytes(b"half of a download")
    tensors, _ = read_file(folder / "weights.safetensors")
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "weights.safetensors")}))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    shown = in_process("run", folder, *SHORT, "--json", "--draft-depth", "0")
    assert (shown.code, shown.answer["tokens"]) == (0, answer["tokens"])
    assert list(scratch.iterdir()) == []


def test_raw_leaves_the_chat_template_out(tmp_path: Path) -> None:
    folder = demo_copy(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    asked = ("run", folder, "hi", "--max-tokens", "1", "--json")
    wrapped, raw = in_process(*asked).answer, in_process(*asked, "--raw").answer
    assert raw["stats"]["prompt_tokens"] == 1
    assert wrapped["stats"]["prompt_tokens"] > 5


def test_a_stop_string_is_never_printed_whatever_tokens_it_is_spread_over(answer: dict[str, Any]) -> None:
    text = answer["text"]
    # from the middle of one word into the next: no token ends where this does
    stop = text[len(text) // 2 : len(text) // 2 + 9]
    asked = ("run", "demo", *SHORT, "--json", "--stop", "no such text", "--stop", stop)
    plain, fast = (in_process(*asked, "--draft-depth", depth).answer for depth in ("0", "4"))
    assert plain["text"] == text[: text.index(stop)]
    assert plain["finish_reason"] == "stop"
    assert (fast["text"], fast["tokens"]) == (plain["text"], plain["tokens"])
    assert plain["tokens"] == answer["tokens"][: len(plain["tokens"])]
    assert len(plain["tokens"]) < 40


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        files = {path.name: path.read_bytes() for path in DEMO.iterdir()}
        hub.repos["owner/tuned"] = Repo(files, card={"base_model": "owner/base"})
        hub.repos["owner/base"] = Repo({}, card={})
        hub.repos["owner/base-mtp"] = Repo({"mtp.safetensors": DEMO_SIDECAR.read_bytes()})
        yield hub


def test_from_the_hub_with_the_head_that_the_catalog_knows(hub: LoopbackHub, skulk: Program, tmp_path: Path) -> None:
    entry = {"kind": "sidecar", "base": "owner/base", "repo": "owner/base-mtp", "layout": "qwen_mtp"}
    config = tmp_path / "config" / "skulk"
    config.mkdir(parents=True)
    entries = [{**entry, "licence": "apache-2.0", "default_depth": 3}]
    (config / "catalog.yaml").write_text(json.dumps({"schema": 1, "entries": entries}))
    asked = ("run", "owner/tuned@main", *SHORT, "--json")
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CONFIG_HOME": str(config.parent)}
    progress_was_seen = Event()
    hub.before_body["model.safetensors"] = lambda: progress_was_seen.wait(WAIT_S)
    terminal = OnTerminal(skulk, *asked, **settings)
    terminal.wait_for(" MB")
    progress_was_seen.set()
    finished = terminal.finish()
    assert finished.code == 0, finished.stderr
    assert finished.answer["model"] == f"owner/tuned@{hub.repos['owner/tuned'].sha}"
    assert finished.answer["sidecar"] == "owner/base-mtp"
    assert finished.answer["stats"]["draft_depth"] == 3
