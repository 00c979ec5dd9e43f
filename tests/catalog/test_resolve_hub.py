"""From any model on the Hub to its base, over the cards and configurations that publishers give their models."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_loopback import ROOT, LoopbackHub, Repo

SHAPE = {"model_type": "qwen3_5", "hidden_size": 64, "vocab_size": 99, "num_hidden_layers": 4}
CATALOG = {
    "schema": 1,
    "entries": [
        {"kind": "sidecar", "base": "first/One", "repo": "fox/one-mtp", "layout": "x", "licence": "mit"},
        {"kind": "sidecar", "base": "first/Two", "repo": "fox/two-mtp", "layout": "x", "licence": "mit"},
    ],
}


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    shaped = [{**entry, "fingerprint": SHAPE} for entry in CATALOG["entries"]]  # type: ignore[union-attr,dict-item]
    path.write_text(json.dumps({**CATALOG, "entries": shaped}))
    return path


def look_up(hub: LoopbackHub, catalog: Path, home: Path, *models: str) -> list[dict[str, Any]]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    ours = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "catalog_client.py"), str(catalog), *models],
        env={**kept, **ours, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = json.loads(process.stdout.splitlines()[-1])
    assert isinstance(answer, list)
    return answer


def repo(config: dict[str, Any], base: str | list[str] | None = None, relation: str | None = None) -> Repo:
    card = {} if base is None else {"base_model": base, **({"base_model_relation": relation} if relation else {})}
    return Repo({"config.json": json.dumps(config).encode(), "n": str((base, relation)).encode()}, card)


@pytest.fixture(scope="module")
def answers(hub: LoopbackHub, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every look-up of this page in one process, by the model's name."""
    hub.repos.update(
        {
            "first/One": repo(SHAPE),
            "q/quantised": repo(SHAPE, "t/tuned", "quantized"),
            "t/tuned": repo(SHAPE, ["first/One"], "finetune"),
            "t/adapter": repo(SHAPE, "first/Two", "adapter"),
            "m/merge": repo(SHAPE, ["t/tuned", "t/adapter"], "merge"),
            "m/own-two": repo(SHAPE, ["first/Two", "t/tuned"], "merge"),
            "m/Two-4bit": repo(SHAPE, ["t/tuned", "t/adapter"], "merge"),
            "m/unlisted": repo({**SHAPE, "vocab_size": 98}, ["u/One-abliterated", "u/Two-8bit"], "merge"),
            "t/far": repo({**SHAPE, "vocab_size": 98}, "u/Two-8bit", "quantized"),
            "t/pruned": repo({**SHAPE, "num_hidden_layers": 2}, "first/One", "finetune"),
            "n/nobody": repo(SHAPE),
            "n/nothing": Repo({"a": b"1"}),
        }
    )
    # a folder that only its card leads anywhere
    local = tmp_path_factory.mktemp("models") / "local"
    local.mkdir()
    (local / "README.md").write_text("---\nbase_model: q/quantised\n---\n")
    (local / "config.json").write_text(json.dumps(SHAPE))
    sha = hub.repos["t/tuned"].sha
    names = [*(name for name in hub.repos), str(local), f"{hub.url}/t/tuned/tree/{sha}", "no/such"]
    found = look_up(hub, catalog, tmp_path_factory.mktemp("hf"), *names)
    by_name = dict(zip(names, found, strict=True))
    return {**by_name, "folder": by_name[str(local)], "address": by_name[f"{hub.url}/t/tuned/tree/{sha}"]}


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("first/One", "first/One"),
        ("t/tuned", "first/One"),
        ("q/quantised", "first/One"),
        ("t/adapter", "first/Two"),
        ("folder", "first/One"),
        ("address", "first/One"),
        ("t/far", "first/Two"),
        ("m/own-two", "first/Two"),
        ("m/Two-4bit", "first/Two"),
    ],
)
def test_a_model_leads_to_its_base(answers: dict[str, dict[str, Any]], model: str, base: str) -> None:
    assert answers[model]["base"] == base


def test_every_card_on_the_way_is_shown(answers: dict[str, dict[str, Any]]) -> None:
    listed, step = answers["q/quantised"]["steps"]
    assert (listed["outcome"], step["rule"], step["outcome"]) == ("nothing", "base_model", "found")
    assert "t/tuned (base_model of q/quantised (quantized))" in step["said"]
    assert "first/One (base_model of t/tuned (finetune))" in step["said"]


def test_a_merge_of_two_listed_models_is_neither(answers: dict[str, dict[str, Any]]) -> None:
    """Which parent a merge takes after cannot be read off its card."""
    assert answers["m/merge"]["base"] is None
    step = answers["m/merge"]["steps"][1]
    assert (step["outcome"], step["bases"]) == ("ambiguous", ["first/One", "first/Two"])
    assert "no name is like one of first/One or first/Two" in answers["m/merge"]["steps"][-1]["said"]


def test_names_of_a_merges_parents_do_not_decide(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["m/unlisted"]["base"] is None
    step = answers["m/unlisted"]["steps"][-1]
    assert (step["rule"], step["outcome"], step["bases"]) == ("name", "ambiguous", ["first/One", "first/Two"])


def test_a_base_whose_shape_the_model_does_not_have_is_refused(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["t/pruned"]["base"] is None
    said = answers["t/pruned"]["steps"][1]["said"]
    assert said == "first/One cannot be its base: num_hidden_layers 2, not 4"


def test_models_of_one_shape_stay_candidates(answers: dict[str, dict[str, Any]]) -> None:
    _, card, config, name = answers["n/nobody"]["steps"]
    assert "names no base model" in card["said"]
    assert (config["outcome"], config["bases"]) == ("ambiguous", ["first/One", "first/Two"])
    assert name["outcome"] == "nothing"


def test_what_cannot_be_read_is_said(answers: dict[str, dict[str, Any]]) -> None:
    assert "n/nothing has no config.json" in answers["n/nothing"]["steps"][2]["said"]
    assert "does not show the card of no/such (status 401)" in answers["no/such"]["steps"][1]["said"]
    assert "no such repository" in answers["no/such"]["steps"][2]["said"]


def test_only_the_configuration_is_downloaded(hub: LoopbackHub, answers: dict[str, dict[str, Any]]) -> None:
    assert answers
    fetched = {request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path}
    assert fetched == {"config.json"}


def test_nobody_is_asked_twice_when_the_hub_is_away(catalog: Path, tmp_path: Path) -> None:
    with LoopbackHub() as away:
        away.reset_all = True
        (found,) = look_up(away, catalog, tmp_path, "mlx-community/One-4bit")
        assert found["base"] == "first/One"
        assert "the Hub cannot be reached" in found["steps"][2]["said"]
        assert len(away.requests) == 1
