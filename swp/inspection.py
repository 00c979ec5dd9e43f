"""What a checkpoint holds for us, from its configuration, index, headers and card: nothing of its weights is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skulk_core.catalog import Catalog, Subject, resolve
from skulk_core.errors import FormatError
from skulk_core.formats.provenance import Licence, Origin
from skulk_core.hub.licences import CARD_FILE, licence_files, read_licence
from skulk_core.hub.model_card import base_models
from skulk_core.hub.ranges import FolderFiles, HubFiles, read_small
from skulk_core.hub.refs import RepoRef
from skulk_core.hub.stored_tensors import StoredTensor
from swp.checkpoint import Checkpoint
from swp.fetch_plan import ByteRange, plan_fetch
from swp.head import Head, Kin, find_head
from swp.recipes import COPY, Recipe, plan_recipes
from swp.sidecar import Entry


@dataclass(frozen=True)
class Source:
    """Where a head is taken from. `repo` and `sha` are empty for a folder that nobody has said the source of."""

    files: FolderFiles | HubFiles
    repo: str
    sha: str
    origin: Origin

    def __str__(self) -> str:
        return str(self.files)


@dataclass(frozen=True)
class Twin:
    """A tensor of the head, and the tensor of the trunk that it may be a copy of."""

    head: StoredTensor
    trunk: StoredTensor


@dataclass(frozen=True)
class Inspection:
    """A checkpoint whose head can be extracted."""

    source: Source
    checkpoint: Checkpoint
    head: Head
    recipes: tuple[Recipe, ...]
    twins: tuple[Twin, ...]
    licence: Licence
    licence_files: tuple[str, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every tensor as it would be shipped."""
        return tuple(Entry(recipe.name, recipe.dtype, recipe.shape) for recipe in self.recipes)

    @property
    def shipped_nbytes(self) -> int:
        """Bytes of all tensors as they would be shipped, copies included."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def fetch_nbytes(self) -> int:
        """Bytes to fetch of the head, with the small gaps that join two requests."""
        return plan_fetch(ranges_of(self.recipes)).nbytes

    @property
    def compare_nbytes(self) -> int:
        """Further bytes to fetch, of the trunk, if every sample agrees."""
        return plan_fetch(range_of(twin.trunk) for twin in self.twins).nbytes

    def to_json(self) -> dict[str, Any]:
        """For `swp inspect --json`."""
        return {
            "source": str(self.source),
            "origin": self.source.origin.value,
            "layout": self.head.layout.name,
            "num_heads": self.head.num_heads,
            "tensors": [_described(recipe) for recipe in self.recipes],
            "possible_copies": [{"name": twin.head.name, "trunk_name": twin.trunk.name} for twin in self.twins],
            "fetch_nbytes": self.fetch_nbytes,
            "compare_nbytes": self.compare_nbytes,
            "header_nbytes": self.checkpoint.tensors.header_nbytes,
            "shipped_nbytes": self.shipped_nbytes,
            "licence": {"id": self.licence.id, "name": self.licence.name, "link": self.licence.link},
            "licence_files": list(self.licence_files),
        }


def inspect_source(source: Source, layout: str | None, catalog: Catalog) -> Inspection:
    """Find the head and how it would be taken. Raises what `find_head` and `plan_recipes` raise, and `FormatError`."""
    checkpoint = Checkpoint.read(source.files)
    head = find_head(checkpoint, layout, _kin(source, catalog))
    recipes = plan_recipes(checkpoint, head)
    _check_names(recipes)
    licence = read_licence(read_small(source.files, CARD_FILE)) if CARD_FILE in source.files.names else Licence()
    return Inspection(
        source,
        checkpoint,
        head,
        recipes,
        _twins(checkpoint, head, recipes),
        licence,
        licence_files(source.files.names),
    )


def range_of(tensor: StoredTensor) -> ByteRange:
    return ByteRange(tensor.file, tensor.begin, tensor.end)


def ranges_of(recipes: Sequence[Recipe]) -> list[ByteRange]:
    """Everything that the recipes read."""
    return [range_of(tensor) for recipe in recipes for _, tensor in recipe.sources]


def source_files(recipes: Sequence[Recipe], twins: Sequence[Twin]) -> tuple[str, ...]:
    """Names of the files that recipes and comparisons read, sorted."""
    read = {tensor.file for recipe in recipes for _, tensor in recipe.sources}
    return tuple(sorted(read | {tensor.file for twin in twins for tensor in (twin.head, twin.trunk)}))


def _kin(source: Source, catalog: Catalog) -> Kin:
    files = source.files
    place: Path | RepoRef = RepoRef(files.repo, files.sha) if isinstance(files, HubFiles) else files.folder
    name = source.repo or str(place)

    def assistant() -> str:
        found = resolve(Subject(str(source), (name,), place, place), catalog.assistants)
        return found.entries[0].repo if found.entries else ""

    return Kin(lambda: base_models(place).repos, assistant)


def _twins(checkpoint: Checkpoint, head: Head, recipes: Sequence[Recipe]) -> tuple[Twin, ...]:
    """The first tensor of the trunk that each could be a copy of, by dtype and shape; quantised ones cannot be told."""
    found: list[Twin] = []
    for recipe in recipes:
        ours = recipe.weight
        for name in head.trunk_copies(ours.name, checkpoint) if recipe.kind == COPY else ():
            trunk = checkpoint.tensors.get(name)
            if (trunk.dtype, trunk.shape) == (ours.dtype, ours.shape):
                found.append(Twin(ours, trunk))
                break
    return tuple(found)


def _check_names(recipes: Sequence[Recipe]) -> None:
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise FormatError("model.safetensors.index.json", twice, "stands there packed and unpacked")


def _described(recipe: Recipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "file": recipe.weight.file,
        "source_dtype": recipe.weight.dtype,
        "dtype": recipe.dtype,
        "shape": list(recipe.shape),
        "recipe": recipe.kind,
        "nbytes": sum(tensor.nbytes for _, tensor in recipe.sources),
    }
