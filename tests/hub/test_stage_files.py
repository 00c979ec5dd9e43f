"""A host fetches the files its layers need, no others, and computes with them what the whole model computes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
import tiny_checkpoints
from hub_here import ClientHere
from hub_loopback import LoopbackHub, Repo
from safetensors.torch import load_file, save_file
from tiny_models import assert_close, random_tokens

from skulk_core.errors import FileError, HubUnreachable
from skulk_core.formats.elsewhere import ELSEWHERE_FILE, AbsentTensor, elsewhere_text
from skulk_core.hub.refs import FolderRef, RepoRef
from skulk_core.models.loading import load
from skulk_core.models.stage_source import locate_stage
from skulk_core.types import LayerRange

REPO = "owner/tiny"
STAGES = (LayerRange(0, 1), LayerRange(1, 2), LayerRange(2, 4))


def by_layer(folder: Path) -> Path:
    """Re-shard a checkpoint as large ones are released: a few layers to a file, embedding first, head last."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for name in tensors:
        layer = re.search(r"layers\.(\d+)\.", name)
        number = int(layer[1]) + 2 if layer else 1 if "embed" in name else 6
        weight_map[name] = f"model-{number:05}-of-00006.safetensors"
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module", params=["qwen3_next", "qwen3_5", "llama"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return by_layer(tiny_checkpoints.save(tiny_checkpoints.torch_model(request.param), folder))


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos[REPO] = Repo({file.name: file.read_bytes() for file in checkpoint.iterdir()})
        yield hub


@pytest.fixture
def here(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClientHere:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ClientHere(hub.url, tmp_path / "hf", monkeypatch)


def whole_files(hub: LoopbackHub) -> set[str]:
    """Weight files that were fetched from their first byte to their last."""
    asked = [r for r in hub.requests if r.method == "GET" and "/resolve/" in r.path and r.path.endswith(".safetensors")]
    return {r.path.rpartition("/")[2] for r in asked if r.range is None}


@pytest.mark.usefixtures("here")
def test_a_stage_fetches_its_own_files_and_computes_what_the_whole_computes(hub: LoopbackHub, checkpoint: Path) -> None:
    """Some families read their weights by which tensors there are: a part alone, read so, would be another model."""
    tokens = random_tokens(7, seed=1)
    whole = load(checkpoint, "float32").target
    expected = whole.logits(whole.norm(whole.run(whole.embed(tokens, 0), whole.make_caches()).h))
    fetched = []
    rows = None
    for stage, files in zip(STAGES, ({1, 2}, {3}, {1, 4, 5, 6}), strict=True):
        hub.requests.clear()
        found = locate_stage(RepoRef(REPO), stage)
        got = whole_files(hub)
        fetched += sorted(got)
        named = {f"model-{number:05}-of-00006.safetensors" for number in files}
        assert got <= named
        assert {file.name for file in found.source.folder.glob("*.safetensors")} >= named
        part = load(found.source.path, "float32", stage, found.absent)
        assert set(part.headers.model[0].file.parent.glob("*.safetensors")) >= {t.file for t in part.headers.model}
        target = part.target
        entering = target.embed(tokens, 0) if rows is None else rows
        rows = target.run(entering, target.make_caches())
    assert rows is not None
    assert_close(target.logits(target.norm(rows.h)), expected)
    # one cache served all three here: nothing was fetched twice
    assert sorted(fetched) == sorted(set(fetched))
    mx.eval(expected)


@pytest.mark.usefixtures("here")
def test_the_bytes_of_other_layers_stay_where_they_are(hub: LoopbackHub) -> None:
    """A host that holds a tenth of a model must not wait for all of it, nor have the disk for it."""
    locate_stage(RepoRef(REPO), LayerRange(1, 2))
    sizes = {name: len(content) for name, content in hub.repos[REPO].files.items()}
    assert whole_files(hub) == {"model-00003-of-00006.safetensors"}
    ranges = [r for r in hub.requests if r.method == "GET" and r.range and r.path.endswith(".safetensors")]
    read = [re.fullmatch(r"bytes=(\d+)-(\d+)", str(r.range)) for r in ranges]
    header_nbytes = sum(int(found[2]) - int(found[1]) + 1 for found in read if found)
    others = (
        sum(size for name, size in sizes.items() if name.endswith("safetensors"))
        - sizes["model-00003-of-00006.safetensors"]
    )
    assert 0 < header_nbytes < others / 4


@pytest.mark.usefixtures("here")
def test_the_stage_that_drafts_fetches_a_head_that_lies_beside_the_model(hub: LoopbackHub) -> None:
    """The index does not tell of it, and nobody else needs it."""
    hub.repos[REPO].files["mtp.safetensors"] = b"a head"
    folder = locate_stage(RepoRef(REPO), STAGES[1]).source.folder
    assert not (folder / "mtp.safetensors").exists()
    folder = locate_stage(RepoRef(REPO), STAGES[2]).source.folder
    assert (folder / "mtp.safetensors").read_bytes() == b"a head"


def test_a_second_start_needs_no_network(hub: LoopbackHub, here: ClientHere) -> None:
    first = locate_stage(RepoRef(REPO), STAGES[0])
    hub.stop()
    again = locate_stage(RepoRef(REPO), STAGES[0])
    assert again.absent == first.absent
    with pytest.raises(HubUnreachable):
        locate_stage(RepoRef(REPO), STAGES[1])


def test_a_folder_with_a_part_serves_that_part_alone(checkpoint: Path, tmp_path: Path) -> None:
    """What was pushed to a host is used for the layers it was pushed for, and refused by name for others."""
    whole = load(checkpoint, "float32")
    kept = {f"model-{number:05}-of-00006.safetensors" for number in (1, 2)}
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors" or file.name in kept:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    absent = [
        AbsentTensor(t.name, t.dtype, t.shape, t.file.name) for t in whole.headers.model if t.file.name not in kept
    ]
    (tmp_path / ELSEWHERE_FILE).write_text(elsewhere_text(absent))
    found = locate_stage(FolderRef(tmp_path), STAGES[0])
    part = load(found.source.path, "float32", STAGES[0], found.absent).target
    tokens = random_tokens(5, seed=2)
    rows = part.run(part.embed(tokens, 0), part.make_caches()).h
    model = load(checkpoint, "float32", STAGES[0]).target
    assert_close(rows, model.run(model.embed(tokens, 0), model.make_caches()).h)
    with pytest.raises(FileError, match="not here, and"):
        locate_stage(FolderRef(tmp_path), STAGES[1])
