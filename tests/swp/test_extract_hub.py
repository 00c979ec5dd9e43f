"""Extracting from a Hub: what is fetched, what happens when things go wrong, and that nothing is fetched twice."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from cli_checkpoints import read_file
from swp_extracting import shipped
from swp_hub import Faults, HubRepo, SwpHub
from swp_worker import Ended, Worker
from upstream_checkpoints import Built, Maker, deepseek, deepseek_v4, qwen, write

from skulk_core.formats.provenance import read_manifest

TOKEN = "hf_secretsecretsecretsecretsecretsec"
WIDE = 1 << 20
SMALL = {"part_nbytes": 128 << 10}
LARGE_NBYTES = 8192  # larger than headers and samples, which every run reads


@pytest.fixture(scope="module")
def hub() -> Iterator[SwpHub]:
    with SwpHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def worker(hub: SwpHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(hub.url, tmp_path_factory.mktemp("home"), TOKEN)
    yield worker
    worker.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of this test's own: parts are kept by repository."""
    return f"owner/{request.node.name.replace('[', '-').rstrip(']')}"[:90]


def serve(hub: SwpHub, name: str, folder: Path, built: Built, num_shards: int = 3) -> HubRepo:
    return hub.add(name, write(folder, built, num_shards))


def succeeded(ended: Ended) -> dict[str, object]:
    assert not ended.killed
    assert not ended.error, ended.message
    return ended.answer


def test_a_branch_is_resolved_first_and_its_commit_is_on_the_manifest(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    """The Hub here fails the test if a file is asked for by the branch, which may move in between."""
    built = deepseek()
    repo = serve(hub, name, tmp_path / "up", built)
    succeeded(worker.extract(f"{name}@main", tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.source_repo, manifest.source_sha, manifest.origin) == (name, repo.sha, "fetched")
    assert shipped(tmp_path / "out") == built.shipped
    assert {file.sha256 for file in manifest.source_files} == {repo.etag(file.name) for file in manifest.source_files}


def test_the_manifest_says_where_every_byte_came_from(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    """Without it nobody can check a published sidecar."""
    from hashlib import sha256

    repo = serve(hub, name, tmp_path / "up", deepseek_v4())
    succeeded(worker.extract(name, tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out")
    ours = shipped(tmp_path / "out")
    pieces = [piece for record in manifest.tensors for piece in record.source]
    pieces += [piece for one in manifest.shared for piece in (one.source, one.trunk)]
    files = {file.name: (repo.folder / file.name).read_bytes() for file in manifest.source_files}
    theirs = {name: tensor for file in files for name, tensor in read_file(repo.folder / file)[0].items()}
    for piece in pieces:
        stored = files[piece.file][piece.begin : piece.end]
        assert sha256(stored).hexdigest() == piece.sha256, piece.name
        assert theirs[piece.name].data == stored
    assert {record.name: record.sha256 for record in manifest.tensors} == {
        name: sha256(tensor.data).hexdigest() for name, tensor in ours.items()
    }
    for file in manifest.files:
        assert sha256((tmp_path / "out" / file.name).read_bytes()).hexdigest() == file.sha256
    assert (tmp_path / "out" / "LICENSE").read_bytes() == (repo.folder / "LICENSE").read_bytes()


def wide(built: Built, make: Maker) -> Built:
    """The same head with an attention that is larger than everything else."""
    name = next(name for name in built.head if name.endswith("self_attn.o_proj.weight"))
    built.head[name] = make.bits("BF16", (WIDE // 2, 4), 2)
    return built


@pytest.mark.parametrize("copies", ["equal", "own"])
def test_little_more_than_the_head_is_fetched(
    copies: str, hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    """Counted by the server. A copy that differs is found out by samples, not by fetching the trunk's."""
    make, built = Maker(0), wide(deepseek(1, copies), Maker(1))
    vocabulary = {f"{part}.weight": make.bits("BF16", (WIDE // 2, 1), 2) for part in ("embed_tokens", "lm_head")}
    built.trunk |= {"model.embed_tokens.weight": vocabulary["embed_tokens.weight"]}
    built.trunk |= {"lm_head.weight": vocabulary["lm_head.weight"]}
    built.trunk |= {"model.layers.0.mlp.up_proj.weight": make.bits("BF16", (4 * WIDE, 1), 2)}
    own = {part: make.bits("BF16", (WIDE // 2, 1), 2) for part in ("embed_tokens", "lm_head")}
    for part, place in (("embed_tokens", "embed_tokens"), ("lm_head", "shared_head.head")):
        built.head[f"model.layers.2.{place}.weight"] = vocabulary[f"{part}.weight"] if copies == "equal" else own[part]
    repo = serve(hub, name, tmp_path / "up", built)
    succeeded(worker.extract(name, tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out")
    assert len(manifest.shared) == (2 if copies == "equal" else 0)
    read = sum(piece.nbytes for record in manifest.tensors for piece in record.source)
    compared = 2 * sum(one.nbytes for one in manifest.shared)
    headers = sum(8 + int.from_bytes((repo.folder / f.name).read_bytes()[:8], "little") for f in manifest.source_files)
    assert repo.sent_weights_nbytes <= 1.05 * (read + compared) + headers
    assert read + compared < repo.sent_weights_nbytes
    assert shipped(tmp_path / "out") == built.shipped


def test_no_compare_ships_the_copies_and_reads_nothing_of_the_trunk(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    built = deepseek()
    serve(hub, name, tmp_path / "up", built)
    succeeded(worker.extract(name, tmp_path / "out", compare=False))
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.compared, manifest.shared) == (False, ())
    assert shipped(tmp_path / "out") == built.head


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    repo = serve(hub, name, tmp_path / "up", qwen())
    hub.tokens_at_hub.clear()
    succeeded(worker.extract(name, tmp_path / "out"))
    assert set(hub.tokens_at_hub) == {f"Bearer {TOKEN}"}
    assert hub.tokens_at_storage == []
    assert any(where == "storage" for where, *_ in repo.requests)
    for file in (tmp_path / "out").iterdir():
        assert TOKEN.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    "faults",
    [
        Faults(statuses=[(500, {}), (503, {"Retry-After": "0"}), (429, {"Retry-After": "0"})]),
        Faults(cut_after=[300_000, 700_000, 1_000]),
    ],
    ids=["busy", "cut"],
)
def test_a_busy_server_and_broken_connections_are_waited_out(
    faults: Faults, hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    built = wide(qwen(), Maker(1))
    faults.statuses = [(status, {"Retry-After": "0"}) for status, _ in faults.statuses]
    serve(hub, name, tmp_path / "up", built, 1).faults = faults
    succeeded(worker.extract(name, tmp_path / "out"))
    assert shipped(tmp_path / "out") == built.shipped
    assert (faults.statuses, faults.cut_after) == ([], [])


def test_a_connection_that_broke_goes_on_where_it_broke(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    """Fetching a large part again from its beginning may never end on a bad line."""
    built = wide(qwen(), Maker(1))
    repo = serve(hub, name, tmp_path / "up", built, 1)
    repo.faults.cut_after = [3 << 20]
    succeeded(worker.extract(name, tmp_path / "out"))
    whole = sum(len(tensor.data) for tensor in built.shipped.values())
    assert repo.sent_weights_nbytes < 1.3 * whole


def test_a_server_without_ranges_is_read_whole_once_and_gives_the_same(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    built = wide(deepseek(), Maker(1))
    repo = serve(hub, name, tmp_path / "up", built)
    repo.faults.no_ranges = True
    succeeded(worker.extract(name, tmp_path / "out"))
    assert shipped(tmp_path / "out") == built.shipped


def test_a_file_that_changes_in_mid_work_is_an_error(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    """Two versions in one sidecar would be a head that nobody ever trained."""
    repo = serve(hub, name, tmp_path / "up", wide(qwen(), Maker(1)), 1)
    # configuration, card and header are read before
    repo.faults.other_etag_from = 7
    worker.extract(name, tmp_path / "out").raised("SourceChanged", "model.safetensors", "changed")
    assert not (tmp_path / "out").exists()


def test_an_answer_with_other_bytes_is_refused(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    """No digest is known for a part of a file: a proxy that answers the wrong range would go unnoticed."""
    repo = serve(hub, name, tmp_path / "up", wide(qwen(), Maker(1)), 1)
    repo.faults.shifted = True
    worker.extract(name, tmp_path / "out").raised("HubError", "asked for bytes from")
    assert not (tmp_path / "out").exists()


def test_a_damaged_part_in_the_cache_is_fetched_again(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    built = wide(qwen(), Maker(1))
    repo = serve(hub, name, tmp_path / "up", built, 1)
    assert _kill_after(worker, repo, 2 << 20, name, tmp_path / "out", num_jobs=1, **SMALL)
    parts = sorted(path for path in (worker.home / "hf").rglob(f"*{repo.sha}*/*/*/[!.]*") if path.is_file())
    assert len(parts) > 3
    for part in parts[:2]:
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    repo.requests.clear()
    succeeded(worker.extract(name, tmp_path / "out", **SMALL))
    assert shipped(tmp_path / "out") == built.shipped
    begins = [path.name.split("-")[0] for path in parts]
    fetched = [begin for begin in begins if any(one.startswith(f"bytes={begin}-") for one in repo.ranges())]
    assert fetched == begins[:2]


def test_unknown_repositories_and_licences_are_told_before_anything_is_fetched(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    worker.extract("owner/nothing", tmp_path / "out").raised("RepoNotFound", "owner/nothing")
    repo = hub.add(name, write(tmp_path / "up", qwen(), card="# no front matter\n"))
    worker.extract(f"{name}@v9", tmp_path / "out").raised("RevisionNotFound", "v9")
    worker.extract(name, tmp_path / "out").raised("LicenceUnknown", "states no licence")
    assert repo.sent_weights_nbytes < 10_000
    assert not (tmp_path / "out").exists()
    succeeded(worker.extract(name, tmp_path / "out", licence_unknown=True))
    assert read_manifest(tmp_path / "out").licence.id is None


def test_run_again_it_fetches_nothing_and_says_that_it_was_there(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    repo = serve(hub, name, tmp_path / "up", qwen())
    assert succeeded(worker.extract(name, tmp_path / "out"))["was_there"] is False
    before, sent = contents(tmp_path / "out"), repo.sent_weights_nbytes
    assert succeeded(worker.extract(name, tmp_path / "out"))["was_there"] is True
    assert (contents(tmp_path / "out"), repo.sent_weights_nbytes) == (before, sent)
    (tmp_path / "out" / "mtp.safetensors").write_bytes(b"damaged")
    worker.extract(name, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_another_models_folder_is_not_overwritten(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    serve(hub, name, tmp_path / "up", qwen())
    hub.add(f"{name}-b", tmp_path / "up")
    succeeded(worker.extract(name, tmp_path / "out"))
    before = contents(tmp_path / "out")
    worker.extract(f"{name}-b", tmp_path / "out").raised("OptionError", "--out", name)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("same_folder", [True, False])
def test_two_at_once_do_not_corrupt_each_other(
    same_folder: bool, hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    """They share fetched parts, and perhaps the folder; whoever ends first must not take them from the other."""
    built = wide(deepseek(2), Maker(1))
    repo = serve(hub, name, tmp_path / "up", built)
    # the first has fetched something when the second begins
    begun = Event()
    repo.faults.on_sent = lambda nbytes: begun.set() if nbytes > 1 << 20 else None
    outs = [tmp_path / "one", tmp_path / ("one" if same_folder else "two")]
    first = worker.start(name, outs[0])
    assert begun.wait(60)
    second = worker.start(name, outs[1])
    for pid in (first, second):
        succeeded(worker.wait(pid))
    assert contents(outs[0]) == contents(outs[1])
    assert shipped(outs[0]) == built.shipped


def test_killed_at_random_moments_and_run_again_it_ends_the_same(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    """Finished parts are not fetched again, whenever the process died; nothing half-written is left."""
    built = wide(deepseek(2), Maker(1))
    repo = serve(hub, name, tmp_path / "up", built)
    succeeded(worker.extract(name, tmp_path / "whole", **SMALL))
    assert not finished_parts(worker, repo), "the first of these would be fetched by nobody"
    rng = random.Random(20)
    finished: set[str] = set()
    for _ in range(12):
        assert _kill_after(worker, repo, rng.randrange(WIDE // 4), name, tmp_path / "out", num_jobs=2, **SMALL)
        assert not list((tmp_path / "out").glob("[!.]*"))
        assert finished <= finished_parts(worker, repo)
        finished = finished_parts(worker, repo)
    assert finished
    repo.requests.clear()
    files = ("mtp.safetensors", "LICENSE", "provenance.json")
    moments = [{"die_at_tensor": tensor} for tensor in (1, 9, 20)]
    moments += [{"die_at_file": ("before", file)} for file in files] + [{"die_at_file": ("after", files[0])}]
    moments += [{"die_at_file": ("after", file)} for file in files[1:]]
    for moment in moments[:8]:
        assert worker.extract(name, tmp_path / "out", **SMALL, **moment).killed, moment
    succeeded(worker.extract(name, tmp_path / "out", **SMALL))
    assert not finished & set(repo.ranges()), "a finished part was fetched again"
    large = [(begin, end) for begin, end in map(bounds, repo.ranges()) if end - begin > LARGE_NBYTES]
    assert large
    assert len(large) == len(set(large)), "a part was fetched twice"
    assert shipped(tmp_path / "out") == built.shipped
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not finished_parts(worker, repo), "the cache was left behind"


def test_killed_at_its_very_end_it_is_finished_by_the_next_run(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    repo = serve(hub, name, tmp_path / "up", qwen())
    assert worker.extract(name, tmp_path / "out", die_at_file=("after", "provenance.json")).killed
    assert succeeded(worker.extract(name, tmp_path / "out"))["was_there"] is True
    assert (tmp_path / "out" / "README.md").read_text().startswith("---")
    assert not finished_parts(worker, repo), "the cache was left behind"


def bounds(asked: str) -> tuple[int, int]:
    """First and last byte of a `Range`."""
    begin, end = asked.removeprefix("bytes=").split("-")
    return int(begin), int(end)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finished_parts(worker: Worker, repo: HubRepo) -> set[str]:
    """Ranges, as they are asked for, of the parts in the cache."""
    found = set()
    for path in (worker.home / "hf").rglob(f"*{repo.sha}*/*/*/*"):
        if path.is_file() and not path.name.startswith("."):
            begin, end, _ = path.name.split("-")
            found.add(f"bytes={begin}-{int(end) - 1}")
    return found


def _kill_after(worker: Worker, repo: HubRepo, nbytes: int, name: str, out: Path, **wish: object) -> bool:
    """Start an extract and kill it once so many more bytes were sent; whether it was killed."""
    limit = repo.sent_weights_nbytes + nbytes
    reached, killed = Event(), Event()

    def hold_back(sent_nbytes: int) -> None:
        if sent_nbytes >= limit:
            reached.set()
            killed.wait(60)

    repo.faults.on_sent = hold_back
    pid = worker.start(name, out, **wish)
    assert reached.wait(60)
    os.kill(pid, signal.SIGKILL)
    killed.set()
    ended = worker.wait(pid)
    repo.faults.on_sent = None
    return ended.killed


def test_tensors_of_a_file_on_the_hub_that_is_no_safetensors_file(
    hub: SwpHub, worker: Worker, name: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "up", qwen())
    (folder / "model.safetensors").write_bytes(b"<html>" * 100)
    hub.add(name, folder)
    worker.extract(name, tmp_path / "out").raised("FileError", "model.safetensors", "safetensors file")


def test_a_tensor_that_ends_behind_its_file_is_told(hub: SwpHub, worker: Worker, name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "up", qwen())
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    hub.add(name, folder)
    worker.extract(name, tmp_path / "out").raised("FileError", "model.safetensors", "truncated")
