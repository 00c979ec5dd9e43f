"""What is fetched of a repository that was named as a head, whatever it turns out to be."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_here import ClientHere
from hub_loopback import LoopbackHub, Repo

ASSISTANT = {"config.json": b'{"model_type": "gemma4_assistant"}', "model.safetensors": b"weights"}
BESIDE = {"README.md": b"", "tokenizer.json": b"{}", "assistant.gguf": b"gguf", "onnx/model.safetensors": b"again"}
SHARDS = {f"model-0000{n}-of-00002.safetensors": bytes([n]) for n in (1, 2)}
INDEX = {"weight_map": {name: name for name in SHARDS}}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos["owner/assistant"] = Repo({**ASSISTANT, **BESIDE})
        config = {"config.json": ASSISTANT["config.json"]}
        index = {"model.safetensors.index.json": json.dumps(INDEX).encode()}
        hub.repos["owner/sharded"] = Repo({**config, **index, **SHARDS})
        hub.repos["owner/half"] = Repo({**config, **index})
        hub.repos["owner/sidecar"] = Repo({"mtp.safetensors": b"head", "config.json": b"{}", **BESIDE})
        hub.repos["owner/model"] = Repo({"config.json": b'{"model_type": "llama"}', "model.safetensors": b"large"})
        yield hub


@pytest.fixture
def client(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClientHere:
    return ClientHere(hub.url, tmp_path / "hf", monkeypatch)


def fetched(hub: LoopbackHub) -> set[str]:
    return {request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path}


@pytest.mark.parametrize("what", ["head", "assistant"])
def test_an_assistant_is_its_configuration_and_weights(what: str, hub: LoopbackHub, client: ClientHere) -> None:
    assert client.run(what, "owner/assistant").answer["sha"] == hub.repos["owner/assistant"].sha
    assert fetched(hub) == set(ASSISTANT)


def test_an_assistant_in_shards_comes_whole(hub: LoopbackHub, client: ClientHere) -> None:
    assert "path" in client.run("head", "owner/sharded").answer
    assert fetched(hub) == {"config.json", "model.safetensors.index.json", *SHARDS}


def test_a_part_of_an_assistant_is_none(client: ClientHere) -> None:
    """Otherwise an upload that was interrupted shows as a traceback."""
    answer = client.run("head", "owner/half").answer
    assert (answer["error"], answer["message"]) == ("HubError", f"owner/half: the repository has no {min(SHARDS)}")


def test_a_sidecar_wins_over_whatever_is_beside_it(hub: LoopbackHub, client: ClientHere) -> None:
    assert "path" in client.run("head", "owner/sidecar").answer
    assert fetched(hub) == {"mtp.safetensors", "config.json"}


def test_a_model_named_as_a_head_is_not_downloaded(hub: LoopbackHub, client: ClientHere) -> None:
    """Its weights may be hundreds of gigabytes."""
    answer = client.run("head", "owner/model").answer
    assert answer["error"] == "HubError"
    assert answer["message"] == "owner/model: the repository has no mtp.safetensors, and is no draft model"
    assert fetched(hub) == {"config.json"}
