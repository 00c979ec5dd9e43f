"""Downloads with the real client against a Hub on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_loopback import Client, LoopbackHub, Repo

MODEL = {
    "config.json": b'{"model_type": "tiny"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "merges.txt": b"a b",
    "README.md": b"---\nlicense: mit\n---\n",
    "model-00001-of-00002.safetensors": b"first shard",
    "model-00002-of-00002.safetensors": b"second shard",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
}
OTHER_FORMATS = {
    "pytorch_model.bin": b"pickle",
    "consolidated.00.pth": b"pickle",
    "consolidated.safetensors": b"the same weights again",
    "tiny.gguf": b"gguf",
    "original/params.json": b"{}",
    "onnx/config.json": b"{}",
}
SIDECAR = {"mtp.safetensors": b"head", "provenance.json": b"{}", "README.md": b""}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos["owner/tiny"] = Repo({**MODEL, **OTHER_FORMATS})
        hub.repos["owner/tiny-mtp"] = Repo(SIDECAR)
        yield hub


@pytest.fixture
def client(hub: LoopbackHub, tmp_path: Path) -> Client:
    return Client(hub.url, tmp_path / "hf")


def files_in(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_model_comes_whole_and_without_other_weight_formats(hub: LoopbackHub, client: Client) -> None:
    answer = client.run("model", "owner/tiny").answer
    assert files_in(answer["path"]) == MODEL
    assert answer["sha"] == hub.repos["owner/tiny"].sha
    assert answer["repo"] == "owner/tiny"


def test_progress_counts_every_byte_once_and_the_terminal_stays_clean(client: Client) -> None:
    outcome = client.run("model", "owner/tiny")
    num_bytes = sum(len(content) for content in MODEL.values())
    assert outcome.answer["progress"][-1] == ["owner/tiny", num_bytes, num_bytes]
    done = [done for _, done, _ in outcome.answer["progress"]]
    assert done == sorted(done)
    assert len(outcome.stdout.splitlines()) == 1
    assert outcome.stderr == ""


def test_a_sidecar_is_one_file(hub: LoopbackHub, client: Client) -> None:
    answer = client.run("sidecar", "owner/tiny-mtp").answer
    assert files_in(answer["path"]) == {"mtp.safetensors": b"head"}
    assert answer["sha"] == hub.repos["owner/tiny-mtp"].sha


def test_a_commit_can_be_named(hub: LoopbackHub, client: Client) -> None:
    sha = hub.repos["owner/tiny"].sha
    assert client.run("model", f"owner/tiny@{sha}").answer["sha"] == sha


def test_the_second_run_fetches_no_file_again(hub: LoopbackHub, client: Client) -> None:
    first = client.run("model", "owner/tiny").answer
    hub.requests.clear()
    second = client.run("model", "owner/tiny").answer
    assert second["path"] == first["path"]
    assert [request for request in hub.requests if "/resolve/" in request.path] == []


@pytest.mark.parametrize(("what", "name"), [("model", "owner/tiny"), ("sidecar", "owner/tiny-mtp")])
def test_without_a_network_the_cache_is_used(hub: LoopbackHub, client: Client, what: str, name: str) -> None:
    first = client.run(what, name).answer
    hub.stop()
    assert client.run(what, name).answer["path"] == first["path"]


@pytest.mark.parametrize("fault", ["out of order", "login page", "broken connection"])
def test_a_hub_that_answers_nonsense_is_no_reason_not_to_use_the_cache(
    hub: LoopbackHub, client: Client, fault: str
) -> None:
    first = client.run("model", "owner/tiny").answer
    hub.status = 503 if fault == "out of order" else None
    hub.login_page = fault == "login page"
    if fault == "broken connection":
        hub.reset_all = True
    assert client.run("model", "owner/tiny").answer["path"] == first["path"]


def test_offline_mode_asks_nobody(hub: LoopbackHub, client: Client) -> None:
    first = client.run("model", "owner/tiny").answer
    hub.requests.clear()
    assert client.run("model", "owner/tiny", HF_HUB_OFFLINE="1").answer["path"] == first["path"]
    assert hub.requests == []


def test_offline_mode_with_an_empty_cache_says_so(hub: LoopbackHub, client: Client) -> None:
    answer = client.run("model", "owner/tiny", HF_HUB_OFFLINE="1").answer
    assert answer["error"] == "HubUnreachable"
    assert "HF_HUB_OFFLINE" in answer["message"]
    assert hub.requests == []


def test_no_network_and_nothing_cached(hub: LoopbackHub, client: Client) -> None:
    hub.stop()
    answer = client.run("model", "owner/tiny").answer
    assert answer["error"] == "HubUnreachable"
    assert "no connection to the Hub" in answer["message"]


def test_a_hub_out_of_order_is_named_by_its_status(hub: LoopbackHub, client: Client) -> None:
    hub.status = 503
    answer = client.run("model", "owner/tiny").answer
    assert answer["error"] == "HubUnreachable"
    assert "503" in answer["message"]


def test_a_login_page_is_not_taken_for_the_hub(hub: LoopbackHub, client: Client) -> None:
    hub.login_page = True
    answer = client.run("model", "owner/tiny").answer
    assert answer["error"] == "HubUnreachable"
    assert "not a Hub" in answer["message"]


def test_a_cut_connection_goes_on_where_it_was(hub: LoopbackHub, client: Client) -> None:
    chunk = 10 * 2**20  # the client keeps whole chunks of this size
    weights = bytes(range(256)) * (12 * 2**20 // 256)
    hub.repos["owner/big"] = Repo({"config.json": b"{}", "model.safetensors": weights})
    hub.cut_once["model.safetensors"] = chunk + 2**20
    answer = client.run("model", "owner/big").answer
    assert [request.range for request in hub.fetched("model.safetensors")] == [None, f"bytes={chunk}-"]
    assert files_in(answer["path"])["model.safetensors"] == weights
    num_bytes = len(weights) + len(b"{}")
    assert answer["progress"][-1] == ["owner/big", num_bytes, num_bytes]


def test_after_a_failed_download_only_what_is_missing_is_fetched(hub: LoopbackHub, client: Client) -> None:
    broken = "model-00002-of-00002.safetensors"
    others = [file for file in MODEL if file != broken]
    hub.reset_once[broken] = lambda: hub.wait_served(*others)
    failed = client.run("model", "owner/tiny").answer
    assert failed["error"] == "HubUnreachable"
    assert "broke" in failed["message"]
    hub.requests.clear()
    answer = client.run("model", "owner/tiny").answer
    assert files_in(answer["path"]) == MODEL
    assert [request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path] == [
        broken,  # HEAD
        broken,  # GET
    ]


def test_half_a_model_in_the_cache_is_not_used(hub: LoopbackHub, client: Client) -> None:
    broken = "model-00002-of-00002.safetensors"
    hub.reset_once[broken] = lambda: hub.wait_served(*(file for file in MODEL if file != broken))
    client.run("model", "owner/tiny")
    hub.stop()
    assert client.run("model", "owner/tiny").answer["error"] == "HubUnreachable"


def test_files_that_another_program_cached_are_not_taken_for_a_model(hub: LoopbackHub, client: Client) -> None:
    answer = client.run("model", "owner/tiny").answer
    snapshot = Path(answer["path"])
    for listing in snapshot.parent.parent.glob("trees/*.json"):
        listing.unlink()
    (snapshot / "model-00001-of-00002.safetensors").unlink()
    hub.stop()
    answer = client.run("model", "owner/tiny").answer
    assert answer["error"] == "HubUnreachable"
    assert "model-00001-of-00002.safetensors" in answer["message"]


def test_an_unknown_revision(client: Client) -> None:
    answer = client.run("model", "owner/tiny@nope").answer
    assert answer["error"] == "RevisionNotFound"
    assert answer["message"] == "owner/tiny: no revision nope"


@pytest.mark.parametrize("token", ["", "hf_secretsecret"])
def test_a_missing_repository(client: Client, token: str) -> None:
    outcome = client.run("model", "owner/nope", HF_TOKEN=token)
    assert outcome.answer["error"] == "RepoNotFound"
    assert "no such repository on the Hub" in outcome.answer["message"]


@pytest.mark.parametrize("token", ["", "hf_secretsecret"])
def test_a_gated_repository(hub: LoopbackHub, client: Client, token: str) -> None:
    hub.repos["owner/gated"] = Repo(MODEL, gated=True)
    answer = client.run("model", "owner/gated", HF_TOKEN=token).answer
    assert answer["error"] == "RepoNotFound"
    assert "gated" in answer["message"]


def test_a_refused_login_is_named_and_its_token_is_not(hub: LoopbackHub, client: Client) -> None:
    hub.refused_token = "hf_secretsecret"
    outcome = client.run("model", "owner/tiny", HF_TOKEN=hub.refused_token)
    assert outcome.answer["error"] == "RepoNotFound"
    assert "401" in outcome.answer["message"]
    assert hub.refused_token not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("what", "files", "missing"),
    [
        ("model", {"model.safetensors": b""}, "config.json"),
        ("model", {"config.json": b"{}", "pytorch_model.bin": b""}, "safetensors weights"),
        ("sidecar", {"README.md": b""}, "mtp.safetensors"),
    ],
)
def test_a_repository_of_something_else(
    hub: LoopbackHub, client: Client, what: str, files: dict[str, bytes], missing: str
) -> None:
    hub.repos["owner/other"] = Repo(files)
    answer = client.run(what, "owner/other").answer
    assert answer["error"] == "HubError"
    assert answer["message"] == f"owner/other: the repository has no {missing}"


def test_a_cache_that_cannot_be_written(client: Client) -> None:
    client.home.write_text("a file where the cache should be")
    answer = client.run("model", "owner/tiny").answer
    assert answer["error"] == "FileError"
    assert str(client.home) in answer["message"]
