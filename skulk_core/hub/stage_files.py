"""The files of a repository that a part of its model needs. Of the others only the headers are read, by byte ranges."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from skulk_core.formats.elsewhere import AbsentTensor, elsewhere_text, read_elsewhere
from skulk_core.formats.head_names import ANY_HEAD_TENSOR, belongs_to_head, files_of_head
from skulk_core.hub.headers import INDEX_FILE, parse_index
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.ranges import HubFiles
from skulk_core.hub.refs import RepoRef
from skulk_core.hub.snapshot import (
    Snapshot,
    cached_model,
    fetch_files,
    fetch_model,
    fetch_without_weights,
    listed_files,
)
from skulk_core.hub.stored_tensors import StoredTensors
from skulk_core.runtime.userfiles import cache_dir, write_atomically

# Given the folder with the configuration: whether a tensor of that name is needed.
Needs = Callable[[Path], Callable[[str], bool]]


@dataclass(frozen=True)
class StageFiles:
    """A snapshot with the files of a part, and the tensors that the other files declare."""

    snapshot: Snapshot
    absent: tuple[AbsentTensor, ...] = ()


def fetch_stage(ref: RepoRef, needs: Needs, on_progress: OnProgress | None = None) -> StageFiles:
    """Everything but weights, and the weight files that hold a tensor which ``needs`` asks for.

    If it asks for a head, and the index has none, one in a file beside the model's comes too. A model that is cached
    whole, or in one file, is taken whole. Raises as `fetch_model` does.
    """
    whole = cached_model(ref)
    if whole is not None:
        return StageFiles(whole)
    snapshot = fetch_without_weights(ref, on_progress)
    index = snapshot.path / INDEX_FILE
    if not index.is_file():
        return StageFiles(fetch_model(ref, on_progress))
    weight_map = parse_index(index, index.read_bytes())
    needed = needs(snapshot.path)
    at_commit = RepoRef(ref.repo, snapshot.sha)
    # the headers first: what cannot be loaded for want of them need not be fetched
    files = sorted({file for name, file in weight_map.items() if needed(name)})
    absent = _absent(at_commit, weight_map, set(weight_map.values()) - set(files))
    if needed(ANY_HEAD_TENSOR) and not any(map(belongs_to_head, weight_map)):
        files += files_of_head(listed_files(snapshot), set(weight_map.values()))
    fetched = fetch_files(at_commit, files, on_progress)
    return StageFiles(fetched, absent)


def _absent(ref: RepoRef, weight_map: Mapping[str, str], files: set[str]) -> tuple[AbsentTensor, ...]:
    """What ``files`` declare, remembered for runs without a network."""
    kept = cache_dir() / "headers" / f"{ref.repo.replace('/', '--')}@{ref.revision}.json"
    known = list(read_elsewhere(kept)) if kept.is_file() else []
    lacking = files - {tensor.file for tensor in known}
    if lacking:
        hub = HubFiles(ref.repo, ref.revision, sorted(set(weight_map.values())), Event())
        stored = StoredTensors(hub, weight_map)
        found = stored.get_all(name for name, file in weight_map.items() if file in lacking)
        known += [AbsentTensor(tensor.name, tensor.dtype, tensor.shape, tensor.file) for tensor in found]
        write_atomically(kept, elsewhere_text(known))
    return _of(known, files)


def _of(tensors: Iterable[AbsentTensor], files: set[str]) -> tuple[AbsentTensor, ...]:
    ours = (tensor for tensor in tensors if tensor.file in files)
    return tuple(sorted(ours, key=lambda tensor: (tensor.file, tensor.name)))
