"""`skulk run` with an assistant: a folder, the catalog's own, and what is said where there is none to be had."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import assistants
import pytest
from assistants import ASSISTANT, TARGET
from cli_checkpoints import DEMO_SIDECAR
from cli_runner import Finished, Program, in_process
from hub_loopback import LoopbackHub, Repo

PROMPT = "The class statement is used to "
NUM_TOKENS = 24
SHORT = (PROMPT, "--max-tokens", str(NUM_TOKENS))
PEERS = ("--peers", "local:2")
RULE = ("--convention", "position_rule=last_committed")
BASE = "google/gemma-4-12B-it"
TUNED = "someone/gemma-4-12B-it-tuned-8bit"


@cache
def plain() -> list[int]:
    """What plain decoding answers."""
    return assistants.decode(None, PROMPT, 0, NUM_TOKENS).tokens


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    """Google's names, and behind them the tiny pair; and a variant, whose card names its base."""
    with LoopbackHub() as hub:
        hub.repos[BASE] = hub.repos["google/gemma-4-31B-it"] = Repo(files(TARGET), card={})
        hub.repos[TUNED] = Repo(files(TARGET), card={"base_model": BASE, "base_model_relation": "quantized"})
        hub.repos[f"{BASE}-assistant"] = Repo(files(ASSISTANT), card={})
        yield hub


@pytest.fixture(scope="module")
def answers(hub: LoopbackHub, skulk: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    home = tmp_path_factory.mktemp("assistants")
    config = home / "config" / "skulk"
    config.mkdir(parents=True)
    # without the numbers of the real one's configuration, which the tiny one contradicts
    entry = {"kind": "assistant", "base": BASE, "repo": f"{BASE}-assistant", "licence": "apache-2.0"}
    entry |= {"layout": "gemma4_assistant", "default_depth": 3}
    (config / "catalog.yaml").write_text(json.dumps({"schema": 1, "entries": [entry]}))
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "XDG_CONFIG_HOME": str(config.parent)}
    return skulk.run_all(
        {
            "folder": ("run", TARGET, *SHORT, "--json", "--sidecar", ASSISTANT, "--draft-depth", "2", *RULE),
            "tuned": ("run", TUNED, *SHORT, "--json", *RULE),
            "missing": ("run", "google/gemma-4-31B-it", *SHORT),
            "allowed": ("run", "google/gemma-4-31B-it", *SHORT, "--json", "--allow-plain"),
            "ring": ("run", TUNED, *SHORT, "--json", "--verbose", *PEERS, *RULE),
            "ring missing": ("run", "google/gemma-4-31B-it", *SHORT, *PEERS),
            "plan": ("plan", BASE, *PEERS, "--json"),
            "plan given": ("plan", "google/gemma-4-31B-it", *PEERS, "--json", "--sidecar", f"{BASE}-assistant"),
            "plan folder": ("plan", TARGET, *PEERS, "--json", "--sidecar", ASSISTANT),
        },
        **settings,
    )


def test_an_assistant_chosen_by_hand(answers: dict[str, Finished]) -> None:
    drafted = answers["folder"]
    assert drafted.code == 0, drafted.stderr
    assert drafted.answer["tokens"] == plain()
    assert drafted.answer["stats"]["rounds"] < NUM_TOKENS - 1
    assert drafted.answer["sidecar"] == str(ASSISTANT)


def test_a_variant_finds_its_bases_assistant_and_says_so(answers: dict[str, Finished]) -> None:
    """Otherwise every quantisation and fine-tune is decoded without what makes it fast."""
    finished = answers["tuned"]
    assert finished.code == 0, finished.stderr
    assert finished.answer["sidecar"] == f"{BASE}-assistant"
    assert finished.answer["stats"]["draft_depth"] == 3
    assert finished.answer["tokens"] == plain()
    line = f"drafting with {BASE}-assistant: its base model is {BASE}"
    assert line in " ".join(finished.stderr.split())


def test_a_missing_assistant_is_told_with_the_command_that_fetches_it(answers: dict[str, Finished]) -> None:
    answers["missing"].assert_fails(
        1, "drafts with google/gemma-4-31B-it-assistant", "hf download google/gemma-4-31B-it-assistant", "--allow-plain"
    )
    allowed = answers["allowed"]
    assert allowed.code == 0, allowed.stderr
    assert "google/gemma-4-31B-it-assistant, which cannot be had" in allowed.answer["plain_because"]
    assert allowed.answer["tokens"] == plain()


def test_several_hosts_say_what_they_draft_with(answers: dict[str, Finished]) -> None:
    """Otherwise nobody sees that a pairing was the catalog's, nor which."""
    finished = answers["ring"]
    assert finished.code == 0, finished.stderr
    assert finished.answer["tokens"] == plain()
    stderr = " ".join(finished.stderr.split())
    assert f"drafting with {BASE}-assistant: its base model is {BASE}" in stderr
    assert f"head: {BASE}-assistant (its base model is {BASE}" in stderr
    assert "conventions from" in stderr


def test_several_hosts_tell_how_to_fetch_a_missing_assistant(answers: dict[str, Finished]) -> None:
    answers["ring missing"].assert_fails(
        1, "drafts with google/gemma-4-31B-it-assistant", "hf download google/gemma-4-31B-it-assistant", "--allow-plain"
    )


@pytest.mark.parametrize("case", ["plan", "plan given", "plan folder"])
def test_a_plan_counts_the_assistant_and_no_cache_for_it(answers: dict[str, Finished], case: str) -> None:
    """Otherwise a host that a plan fits has too little memory, or one that has enough is refused."""
    planned = answers[case]
    assert planned.code == 0, planned.stderr
    assert planned.answer["head"] == (str(ASSISTANT) if case == "plan folder" else f"{BASE}-assistant")
    first, last = (stage["parts"]["head"] for stage in planned.answer["stages"])
    # float32 on this machine, in the file half of it or as much
    stored = (ASSISTANT / "model.safetensors").stat().st_size
    assert first == 0
    assert stored * 0.9 < last < stored * 2.01


def test_what_is_no_assistant_and_what_it_cannot_be() -> None:
    asked = ("run", TARGET, *SHORT, "--sidecar")
    in_process(*asked, TARGET).assert_fails(1, "is a model of type gemma4, and no draft head for another")
    in_process(*asked, ASSISTANT / "model.safetensors").assert_fails(1, "an assistant's weights alone; give its folder")
    itself = in_process("run", ASSISTANT, *SHORT)
    itself.assert_fails(1, "is a draft model for another model", "skulk run MODEL --sidecar")
    assert "Supported types" not in itself.stderr
    in_half = in_process(*asked, ASSISTANT, "--head-precision", "float16", *RULE)
    in_half.assert_fails(2, "--head-precision float16", "bfloat16")


def test_a_head_of_another_model_is_told_before_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large model they take minutes, and the files' headers say enough."""
    monkeypatch.setattr("skulk_core.models.loading.read_weights", lambda _: pytest.fail("weights were read"))
    in_process("run", "demo", *SHORT, "--sidecar", ASSISTANT).assert_fails(
        1, "of a Gemma 4 model, which this one is not"
    )
    in_process("run", TARGET, *SHORT, "--sidecar", DEMO_SIDECAR).assert_fails(1, str(DEMO_SIDECAR))


def test_only_what_is_needed_of_an_assistant_is_fetched(hub: LoopbackHub, answers: dict[str, Finished]) -> None:
    assert answers
    under = f"/{BASE}-assistant/resolve/"
    fetched = {request.path.rpartition("/")[2] for request in hub.requests if request.path.startswith(under)}
    assert fetched == {"config.json", "model.safetensors"}


@pytest.fixture
def once(tmp_path: Path) -> dict[str, str]:
    return {"HF_HOME": str(tmp_path / "hf"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_the_shipped_catalog_pairs_and_the_position_is_measured_once(
    hub: LoopbackHub, skulk: Program, once: dict[str, str]
) -> None:
    """Sources disagree on it by one, so what serves this pair is found here, and kept."""
    asked = ("run", BASE, *SHORT, "--json", "--verbose")
    first, again = (skulk.run(*asked, HF_ENDPOINT=hub.url, **once) for _ in range(2))
    assert (first.code, again.code) == (0, 0), first.stderr
    assert f"drafting with {BASE}-assistant: the catalog lists {BASE}" in " ".join(first.stderr.split())
    assert "does not say how it is wired; measured:" in " ".join(first.stderr.split())
    assert "measured:" not in again.stderr
    assert "position_rule last_committed" in again.stderr
    assert first.answer["tokens"] == again.answer["tokens"]
    assert first.answer["stats"]["draft_depth"] == 2
    # kept by digest, and by nothing that decides which head is taken
    assert (Path(once["XDG_CONFIG_HOME"]) / "skulk" / "probes.json").is_file()
    assert not (Path(once["XDG_CONFIG_HOME"]) / "skulk" / "catalog.yaml").exists()
    ring = skulk.run(*asked, *PEERS, HF_ENDPOINT=hub.url, **once)
    assert ring.answer["tokens"] == first.answer["tokens"]
    assert "conventions from a measurement on this machine" in " ".join(ring.stderr.split())


def test_the_doctor_shows_both_positions() -> None:
    shown = in_process("doctor", TARGET, "--sidecar", ASSISTANT, "--json")
    assert shown.code == 0, shown.stderr
    rules = {candidate["conventions"]["position_rule"] for candidate in shown.answer["candidates"]}
    assert rules == {"last_committed", "before_last"}
    assert shown.answer["picked"]["position_rule"] == "last_committed"
    assert shown.answer["candidates"][0]["agreement"][0] > 2 * shown.answer["chance"]
