"""Base models as cards state them: what is followed, and what ends it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_here import ClientHere
from hub_loopback import LoopbackHub, Repo


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos["owner/model-4bit"] = Repo(
            {"a": b"1"}, {"base_model": "owner/model", "base_model_relation": "quantized"}
        )
        hub.repos["owner/model"] = Repo({"a": b"2"}, {"base_model": ["owner/model-base"]})
        hub.repos["owner/model-base"] = Repo({"a": b"3"}, {"license": "mit"})
        yield hub


@pytest.fixture
def client(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClientHere:
    return ClientHere(hub.url, tmp_path / "hf", monkeypatch)


def folder_with_card(path: Path, text: str) -> str:
    path.mkdir()
    (path / "README.md").write_text(text)
    return str(path)


def repos(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    return [step["repo"] for step in answer["steps"]]


def test_a_quantised_model_leads_to_its_base(client: ClientHere) -> None:
    answer = client.run("chain", "owner/model-4bit").answer
    assert answer["steps"] == [
        {"repo": "owner/model", "why": "base_model of owner/model-4bit (quantized)", "generation": 1},
        {"repo": "owner/model-base", "why": "base_model of owner/model", "generation": 2},
    ]
    assert answer["ended"] == "owner/model-base names no base model"


def test_a_folder_is_followed_from_its_own_card(client: ClientHere, tmp_path: Path) -> None:
    folder = folder_with_card(tmp_path / "m", "---\nbase_model: owner/model # the chat one\n---\n# Title\n---\n")
    answer = client.run("chain-of-folder", folder).answer
    assert repos(answer) == ["owner/model", "owner/model-base"]
    assert answer["steps"][0]["why"] == "base_model of README.md"


def test_a_folder_is_of_use_without_a_network(hub: LoopbackHub, client: ClientHere, tmp_path: Path) -> None:
    folder = folder_with_card(tmp_path / "m", "---\nbase_model: owner/model\n---\n")
    hub.stop()
    answer = client.run("chain-of-folder", folder).answer
    assert repos(answer) == ["owner/model"]
    assert answer["ended"] == "the Hub cannot be reached"


def test_offline_mode_asks_nobody(hub: LoopbackHub, client: ClientHere) -> None:
    answer = client.run("chain", "owner/model-4bit", HF_HUB_OFFLINE="1").answer
    assert answer["steps"] == []
    assert answer["ended"] == "the Hub cannot be reached"
    assert hub.requests == []


def test_nobody_is_asked_again_once_the_hub_is_away(hub: LoopbackHub, client: ClientHere, tmp_path: Path) -> None:
    folder = folder_with_card(tmp_path / "m", "---\nbase_model: [owner/a, owner/b, owner/c]\n---\n")
    hub.reset_all = True
    answer = client.run("chain-of-folder", folder).answer
    assert repos(answer) == ["owner/a", "owner/b", "owner/c"]
    assert len(hub.requests) == 1


def test_a_merge_is_followed_generation_by_generation(hub: LoopbackHub, client: ClientHere) -> None:
    hub.repos["owner/merge"] = Repo({"a": b"4"}, {"base_model": ["owner/model-4bit", "owner/model-base"]})
    answer = client.run("chain", "owner/merge").answer
    assert repos(answer) == ["owner/model-4bit", "owner/model-base", "owner/model"]


def test_models_that_name_each_other_end(hub: LoopbackHub, client: ClientHere) -> None:
    hub.repos["owner/one"] = Repo({"a": b"5"}, {"base_model": "owner/two"})
    hub.repos["owner/two"] = Repo({"a": b"6"}, {"base_model": "Owner/One"})
    answer = client.run("chain", "owner/one").answer
    assert repos(answer) == ["owner/two"]
    assert answer["ended"] == "owner/two names Owner/One again"


def test_a_long_chain_is_cut(hub: LoopbackHub, client: ClientHere) -> None:
    for number in range(20):
        card = {"base_model": f"owner/n{number + 1}"}
        hub.repos[f"owner/n{number}"] = Repo({"a": str(number).encode()}, card)
    answer = client.run("chain", "owner/n0").answer
    assert repos(answer) == [f"owner/n{number}" for number in range(1, 9)]
    assert answer["ended"] == "stopped after 8 models"


def test_a_base_model_that_is_no_repository_ends_the_chain(client: ClientHere, tmp_path: Path) -> None:
    folder = folder_with_card(tmp_path / "m", "---\nbase_model: /home/me/models/llama\n---\n")
    answer = client.run("chain-of-folder", folder).answer
    assert answer["ended"] == "/home/me/models/llama has no card on the Hub"


def test_a_missing_repository_ends_the_chain(client: ClientHere) -> None:
    answer = client.run("chain", "owner/nope").answer
    assert answer["steps"] == []
    assert "owner/nope (status 401)" in answer["ended"]


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("# A title only\n", "has no front matter"),
        ("---\nbase_model: [owner/model\n---\n", "is not YAML"),
        ("---\n- owner/model\n---\n", "is not a mapping"),
        ("---\nbase_model: 7\n---\n", "names no base model"),
    ],
)
def test_a_card_that_cannot_be_used_is_an_outcome(client: ClientHere, tmp_path: Path, text: str, ended: str) -> None:
    answer = client.run("chain-of-folder", folder_with_card(tmp_path / "m", text)).answer
    assert answer["steps"] == []
    assert ended in answer["ended"]


def test_a_folder_without_a_card_is_an_outcome(client: ClientHere, tmp_path: Path) -> None:
    answer = client.run("chain-of-folder", str(tmp_path)).answer
    assert answer["steps"] == []
    assert "no readable README.md" in answer["ended"]
