"""What a model weighs, layer by layer, wherever its files are: a folder, a GGUF file, the Hub. No weight is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

from mlx.utils import tree_flatten

from skulk_core.errors import FileError
from skulk_core.formats.head_names import files_of_head
from skulk_core.hub.headers import INDEX_FILE
from skulk_core.hub.model_config import CONFIG_FILE
from skulk_core.hub.ranges import CheckpointFiles, FolderFiles, HubFiles, read_small
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef, RepoRef
from skulk_core.hub.snapshot import cached_model
from skulk_core.hub.sources import ModelSource, locate_model
from skulk_core.hub.stored_tensors import StoredTensors
from skulk_core.memory.division import Division
from skulk_core.memory.placement import ModelBytes
from skulk_core.memory.weights import ITEM_NBYTES, WeightBytes, weigh
from skulk_core.models.loading import text_config
from skulk_core.models.shape import Shape, division_of, shape_of
from skulk_core.models.weighing_heads import HeadBytes

# A worker's own memory before it has loaded anything: Python, MLX, transformers.
PROCESS_NBYTES = 350_000_000


@dataclass(frozen=True)
class Weighed:
    """A model as its files declare it. `where` names them for a person; `sha` is the Hub's commit, or empty."""

    where: str
    sha: str
    config: Mapping[str, Any]
    shape: Shape
    weights: WeightBytes
    item_nbytes: int
    # of a draft head in files beside the model's own: their names, and their bytes as they are stored
    head_files: tuple[str, ...] = ()
    head_files_nbytes: int = 0

    def needs(self, context: int, head: HeadBytes) -> ModelBytes:
        """What a plan must place, for a context of so many tokens and a draft head."""
        return ModelBytes(
            weights=self.weights,
            outer=self.shape.outer,
            caches=self.shape.caches,
            working=self.shape.working,
            context=context,
            item_nbytes=self.item_nbytes,
            head_nbytes=head.nbytes + (self._head_cache(context) if head.keeps_rows else 0),
            process_nbytes=PROCESS_NBYTES,
            split_points=self.shape.split_points,
            division=self.shape.division,
        )

    def _head_cache(self, context: int) -> int:
        return max(shape.nbytes(context, self.item_nbytes) for shape in self.shape.caches)


def weigh_model(
    ref: DemoRef | FolderRef | FileRef | RepoRef, dtype: str, *, writes_scores: bool, cancel: Event | None = None
) -> Weighed:
    """Read configuration and headers of ``ref``; of a repository that is not cached whole, by byte ranges from the Hub.

    ``dtype`` as `load` takes it. Raises `FileError`, `UnsupportedModel`, and the Hub's errors.
    """
    found = _find(ref, cancel)
    if isinstance(found, ModelSource):
        return _of_gguf(found, dtype, writes_scores=writes_scores)
    config = _config(found.files, found.where)
    shape = shape_of(config, found.where, writes_scores=writes_scores)
    tensors = StoredTensors.of(found.files)
    headers = tensors.get_all(tensors.file_of)
    weights = weigh(headers, shape.num_layers, shape.outer, dtype, f"{found.where}/{INDEX_FILE}")
    beside = () if weights.head else files_of_head(found.files.names, set(tensors.file_of.values()))
    nbytes = sum(found.files.stat(name).nbytes for name in beside)
    return Weighed(found.where, found.sha, config, shape, weights, _item_nbytes(config, dtype), beside, nbytes)


def model_division(ref: DemoRef | FolderRef | FileRef | RepoRef, cancel: Event | None = None) -> Division:
    """How tensor-parallel ranks can divide the model, from its configuration alone. Raises as `weigh_model`."""
    found = _find(ref, cancel)
    if isinstance(found, ModelSource):
        # it stands on the loading of models, and few plans need it
        from skulk_core.models.gguf import load_gguf

        return division_of(load_gguf(found.path).config, str(found))
    return division_of(_config(found.files, found.where), found.where)


@dataclass(frozen=True)
class _Found:
    """A checkpoint's files and their name for a person."""

    files: CheckpointFiles
    where: str
    sha: str = ""


def _find(ref: DemoRef | FolderRef | FileRef | RepoRef, cancel: Event | None) -> _Found | ModelSource:
    """Where the model's files are; a `ModelSource` for one GGUF file."""
    if isinstance(ref, RepoRef):
        cached = cached_model(ref)
        if cached is None:
            files = HubFiles.at(ref, cancel or Event())
            return _Found(files, str(files), files.sha)
        return _Found(FolderFiles(cached.path), f"{cached.repo}@{cached.sha}", cached.sha)
    source = locate_model(ref)
    return source if source.gguf is not None else _Found(FolderFiles(source.folder), str(source))


def _config(files: CheckpointFiles, where: str) -> dict[str, Any]:
    if CONFIG_FILE not in files.names:
        raise FileError(where, f"has no {CONFIG_FILE}")
    try:
        config = json.loads(read_small(files, CONFIG_FILE))
    except ValueError as error:
        raise FileError(f"{where}/{CONFIG_FILE}", f"not valid JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise FileError(f"{where}/{CONFIG_FILE}", "names no model_type")
    return config


def _of_gguf(source: ModelSource, dtype: str, *, writes_scores: bool) -> Weighed:
    """MLX maps a GGUF file when it opens it; what would be loaded is counted on the modules, none of it evaluated."""
    # it stands on the loading of models, and few plans need it
    from skulk_core.models.gguf import load_gguf
    from skulk_core.models.registry import make_target

    parts = load_gguf(source.path)
    shape = shape_of(parts.config, str(source), writes_scores=writes_scores)
    target = make_target(parts.model)
    item = _item_nbytes(parts.config, parts.dtype or dtype if dtype == "checkpoint" else dtype)

    def nbytes(module: Any) -> int:
        arrays = [array for _, array in tree_flatten(module.parameters())]
        return sum(array.size * item if "float" in str(array.dtype) else array.nbytes for array in arrays)

    by_part = {name: nbytes(_named(target.text_model, name)) for name in shape.outer.every}
    weights = WeightBytes(tuple(nbytes(layer) for layer in target.all_layers), by_part)
    return Weighed(str(source), "", parts.config, shape, weights, item)


def _named(text_model: Any, part: str) -> Any:
    owner = text_model.model if part in text_model.model else text_model
    return owner[part]


def _item_nbytes(config: Mapping[str, Any], dtype: str) -> int:
    """Bytes of a number of the activations."""
    said = text_config(config).get("dtype") or text_config(config).get("torch_dtype") or config.get("torch_dtype")
    return ITEM_NBYTES.get(dtype) or ITEM_NBYTES.get(str(said), 2)
