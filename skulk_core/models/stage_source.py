"""One stage's files: its own layers' from the cache, a folder or the Hub, and the names of the rest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skulk_core.errors import FileError
from skulk_core.formats.elsewhere import ELSEWHERE_FILE, AbsentTensor, read_elsewhere
from skulk_core.hub.headers import INDEX_FILE, index_files
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef, RepoRef
from skulk_core.hub.sources import ModelSource, locate_model
from skulk_core.hub.stage_files import fetch_stage
from skulk_core.memory.weights import place_of
from skulk_core.models.loading import read_config
from skulk_core.models.shape import shape_of
from skulk_core.types import LayerRange


@dataclass(frozen=True)
class StageSource:
    """A checkpoint, or the part of one that a stage needs, with what its absent files declare."""

    source: ModelSource
    absent: tuple[AbsentTensor, ...] = ()


def locate_stage(
    ref: DemoRef | FolderRef | FileRef | RepoRef, layers: LayerRange, on_progress: OnProgress | None = None
) -> StageSource:
    """Where the stage's files are, fetched if they must be, and no others.

    Raises what `locate_model` raises, and `FileError` for a folder that lacks a tensor of the stage.
    """
    if isinstance(ref, RepoRef):

        def needs(folder: Path) -> Callable[[str], bool]:
            return needed_by(read_config(folder), str(ref), layers)

        found = fetch_stage(ref, needs, on_progress)
        snapshot = found.snapshot
        return StageSource(ModelSource(ref, snapshot.path, snapshot.sha, snapshot.gguf), found.absent)
    source = locate_model(ref, on_progress)
    absent = () if source.gguf is not None else _absent_from(source.folder)
    if absent:
        needed = needed_by(read_config(source.folder), str(source), layers)
        for tensor in absent:
            if needed(tensor.name):
                raise FileError(
                    source.folder / tensor.file, f"not here, and layer tensors such as {tensor.name} are in it"
                )
    return StageSource(source, absent)


def needed_by(config: Mapping[str, Any], origin: str, layers: LayerRange) -> Callable[[str], bool]:
    """Whether the stage ``layers`` needs the tensor of a name, its checkpoint's own draft head included."""
    shape = shape_of(config, origin)
    parts = shape.outer.of(layers.start, layers.end, shape.num_layers)

    def needed(name: str) -> bool:
        match place_of(name, shape.num_layers, shape.outer.every):
            case int(layer):
                return layers.start <= layer < layers.end
            case "head":
                return layers.end == shape.num_layers
            case str(part):
                return part in parts
            case None:
                return False

    return needed


def _absent_from(folder: Path) -> tuple[AbsentTensor, ...]:
    """What the absent files of a folder that holds a part declare; none of a whole folder. Raises `FileError`."""
    index, elsewhere = folder / INDEX_FILE, folder / ELSEWHERE_FILE
    if not index.is_file() or not elsewhere.is_file():
        return ()
    missing = {file for file in index_files(index) if not (folder / file).is_file()}
    return tuple(tensor for tensor in read_elsewhere(elsewhere) if tensor.file in missing)
