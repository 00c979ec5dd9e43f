"""Repositories of GGUF files: which one is fetched, and that no other is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_loopback import Client, LoopbackHub, Repo

from skulk_core.hub.gguf_names import is_model, preferred

SETTINGS = {"config.json": b'{"model_type": "tiny"}', "README.md": b""}
KINDS = {"m-Q4_K_M.gguf": b"1", "m-Q8_0.gguf": b"2", "m-Q5_K_S.gguf": b"3", "mmproj-m-f16.gguf": b"4"}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos["owner/one"] = Repo({"README.md": b"", "sub/m.Q4_K_M.gguf": b"1"})
        hub.repos["owner/kinds"] = Repo({**SETTINGS, **KINDS})
        hub.repos["owner/two"] = Repo({**SETTINGS, "m.F16.gguf": b"1", "m.BF16.gguf": b"2"})
        hub.repos["owner/both"] = Repo({**SETTINGS, "model.safetensors": b"1", "m.gguf": b"2"})
        yield hub


@pytest.fixture
def client(hub: LoopbackHub, tmp_path: Path) -> Client:
    return Client(hub.url, tmp_path / "hf")


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        ("owner/one", {"README.md", "sub/m.Q4_K_M.gguf"}),
        ("owner/kinds", {*SETTINGS, "m-Q8_0.gguf"}),
        # the weights that need no guessing
        ("owner/both", {*SETTINGS, "model.safetensors"}),
    ],
)
def test_one_file_is_fetched(hub: LoopbackHub, client: Client, repo: str, expected: set[str]) -> None:
    """A publisher's repository of twenty kinds would fill the disk."""
    folder = Path(client.run("model", repo).answer["path"])
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == expected
    hub.stop()
    assert client.run("model", repo).answer["path"] == str(folder)


def test_nothing_is_guessed(hub: LoopbackHub, client: Client) -> None:
    answer = client.run("model", "owner/two").answer
    assert answer["error"] == "HubError"
    assert "owner/two: has 2 GGUF models: m.BF16.gguf, m.F16.gguf; fetch one" in answer["message"]
    assert not hub.fetched("m.F16.gguf")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["anything.gguf"], "anything.gguf"),
        (["m-Q4_K_M.gguf", "m-q8_0.gguf"], "m-q8_0.gguf"),
        (["m.Q4_0_4_4.gguf", "m.Q4_0.gguf", "m-Q8_0_L.gguf"], "m.Q4_0.gguf"),
        (["m-Q4_K_M.gguf", "m-Q5_K_M.gguf"], None),
        (["m-Q4_0.gguf", "m-Q8_0.gguf"], None),
        (["leaf16.gguf", "m.gguf"], None),
    ],
)
def test_the_kind_in_a_name(names: list[str], expected: str | None) -> None:
    assert preferred(names) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.gguf", True),
        ("M.GGUF", True),
        ("m-00001-of-00003.gguf", True),
        ("m-00002-of-00003.gguf", False),
        ("mmproj-m.gguf", False),
        ("m.imatrix.gguf", False),
        ("m.safetensors", False),
    ],
)
def test_what_may_be_a_model(name: str, expected: bool) -> None:
    assert is_model(name) is expected
