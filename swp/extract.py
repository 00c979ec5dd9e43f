"""From a checkpoint at a commit to a folder with its head: sidecar, manifest, card and licence files.

The folder is locked while it is written, and everything in it is renamed into place when it is complete, the manifest
last but for the card. Running again finds what is finished and does only the rest.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from skulk_core.catalog import Catalog
from skulk_core.errors import LicenceUnknown, OptionError
from skulk_core.formats.provenance import (
    MANIFEST_FILE,
    FileRecord,
    Manifest,
    Origin,
    SharedTensor,
    SourceFile,
    TensorRecord,
)
from skulk_core.formats.sidecar import SIDECAR_FILE, SidecarMetadata
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.ranges import FolderFiles, HubFiles, read_small
from swp.card import render
from swp.comparing import find_shared, piece, samples_agree
from swp.dequant import has_nan_scale, needs_torch, require_torch, shipped
from swp.inspection import Inspection, Source, inspect_source, range_of, ranges_of, source_files
from swp.out_folder import CARD_FILE, check_space, finished_manifest, locked, refuse_other_content, write_file
from swp.part_cache import PartCache
from swp.reading import FetchedBytes, FolderBytes, TensorBytes
from swp.recipes import Recipe
from swp.sidecar import Entry, SidecarWriter, in_file_order

DEFAULT_JOBS = 4

_READING = "reading headers"
_COMPARING = "comparing with the trunk"
_WRITING = "writing the sidecar"


@dataclass(frozen=True)
class Wish:
    """What was asked for. `compare` looks for copies of the trunk's embedding and LM head."""

    layout: str | None = None
    compare: bool = True
    licence_unknown: bool = False
    num_jobs: int = DEFAULT_JOBS


@dataclass(frozen=True)
class Extracted:
    """The folder and its manifest. `was_there`: an earlier run had made it, and nothing was done.

    `nan_scales` are the tensors of which upstream has a scale that is NaN, as 0xFF is in E8M0; empty if it was there.
    """

    folder: Path
    manifest: Manifest
    was_there: bool
    nan_scales: tuple[str, ...] = ()


def extract(
    source: Source,
    folder: Path,
    wish: Wish,
    catalog: Catalog,
    tool: str,
    cancel: Event,
    on_progress: OnProgress | None = None,
) -> Extracted:
    """Take the head out of `source` and write `folder`. `tool` is our name and version; `cancel` stops downloads.

    Raises `OptionError` for a folder that holds something else or a source without a commit, `LicenceUnknown`,
    `NotEnoughSpace`, `MissingPackage`, and what reading, finding and converting raise.
    """
    if not source.sha:
        raise OptionError("--source", "(missing)", f"say which commit {source} is a copy of: OWNER/NAME@SHA")
    with locked(folder, on_progress):
        refuse_other_content(folder, f"{source.repo}@{source.sha}")
        done = _done_before(folder, source, wish, tool)
        if done is not None:
            _write_card(folder, done)
            with ExitStack() as stack:
                # a run that was killed at its very end left them
                bytes_of(source, wish.num_jobs, cancel, stack).discard()
            return Extracted(folder, done, True)
        if on_progress is not None:
            on_progress(_READING, 0, None)
        found = inspect_source(source, wish.layout, catalog)
        if found.licence.id is None and not wish.licence_unknown:
            raise LicenceUnknown(str(source), "its card states no licence, so nobody can say what may be done with it")
        if any(needs_torch(recipe) for recipe in found.recipes):
            require_torch()
        with ExitStack() as stack:
            data = bytes_of(source, wish.num_jobs, cancel, stack)
            manifest = _write(found, data, folder, wish, tool, on_progress)
            nan_scales = tuple(recipe.name for recipe in found.recipes if _has_nan_scale(recipe, data))
            data.discard()
    return Extracted(folder, manifest, False, nan_scales)


def _done_before(folder: Path, source: Source, wish: Wish, tool: str) -> Manifest | None:
    """The manifest of the same work, finished. What stands in a folder may have changed: that is always read again."""
    done = finished_manifest(folder) if source.origin is Origin.FETCHED else None
    if done is None or (done.layout_asked, done.compared, done.tool) != (wish.layout, wish.compare, tool):
        return None
    if done.origin is not Origin.FETCHED or (done.licence.id is None and not wish.licence_unknown):
        return None
    return done


def bytes_of(source: Source, num_jobs: int, cancel: Event, stack: ExitStack) -> TensorBytes:
    """Where the tensors of `source` are read from; `stack` holds the cache open. Raises `FileError`."""
    match source.files:
        case FolderFiles():
            return FolderBytes(source.files)
        case HubFiles():
            cache = stack.enter_context(PartCache(source.files.repo, source.files.sha))
            return FetchedBytes(source.files, cache, num_jobs, cancel)


def _write(
    found: Inspection, data: TensorBytes, folder: Path, wish: Wish, tool: str, on_progress: OnProgress | None
) -> Manifest:
    files = found.source.files
    twins = tuple(twin for twin in found.twins if samples_agree(files, twin)) if wish.compare else ()
    wanted = ranges_of(found.recipes) + [range_of(twin.trunk) for twin in twins]
    kept_in = data.kept_in
    check_space([(folder, found.shipped_nbytes), *([(kept_in, data.missing_nbytes(wanted))] if kept_in else [])])
    data.prepare(wanted, on_progress)
    if twins and on_progress is not None:
        on_progress(_COMPARING, 0, None)
    shared = find_shared(twins, data)
    left_out = {one.name for one in shared}
    recipes = tuple(recipe for recipe in found.recipes if recipe.name not in left_out)
    tensors, sidecar = _write_sidecar(found, recipes, shared, data, folder, tool, on_progress)
    licences = tuple(_copy(found.source, name, folder) for name in found.licence_files)
    manifest = Manifest(
        source_repo=found.source.repo,
        source_sha=found.source.sha,
        origin=found.source.origin,
        layout=found.head.layout.name,
        num_heads=found.head.num_heads,
        conventions=found.head.layout.conventions,
        trunk=found.checkpoint.fingerprint(),
        tensors=tensors,
        shared=shared,
        licence=found.licence,
        files=(sidecar, *licences),
        compared=wish.compare,
        tool=tool,
        source_files=tuple(_described(found, name) for name in source_files(found.recipes, twins)),
        model_facts=found.checkpoint.facts(),
        layout_asked=wish.layout,
    )
    write_file(folder / MANIFEST_FILE, manifest.to_json())
    _write_card(folder, manifest)
    return manifest


def _write_sidecar(
    found: Inspection,
    recipes: Sequence[Recipe],
    shared: Sequence[SharedTensor],
    data: TensorBytes,
    folder: Path,
    tool: str,
    on_progress: OnProgress | None,
) -> tuple[tuple[TensorRecord, ...], FileRecord]:
    """Write `mtp.safetensors`; its tensors in the order of the file, and the file."""
    by_name = {recipe.name: recipe for recipe in recipes}
    entries = in_file_order(entry for entry in found.entries if entry.name in by_name)
    total_nbytes, done_nbytes = sum(entry.nbytes for entry in entries), 0
    metadata = _metadata(found, recipes, shared, tool).to_strings()
    records: list[TensorRecord] = []
    with SidecarWriter(folder / SIDECAR_FILE, entries, metadata) as writer:
        for entry in entries:
            if on_progress is not None:
                on_progress(_WRITING, done_nbytes, total_nbytes)
            records.append(derive(by_name[entry.name], data, writer.write))
            done_nbytes += entry.nbytes
        return tuple(records), writer.finish()


def derive(recipe: Recipe, data: TensorBytes, write: Callable[[str, Iterator[bytes]], str]) -> TensorRecord:
    """Make one shipped tensor. `write` is given its name and its bytes in pieces, and returns their sha256."""
    digests = {role: hashlib.sha256() for role, _ in recipe.sources}
    whole: dict[str, bytes] = {}
    for role, tensor in recipe.sources[1:]:
        whole[role] = b"".join(data.read(range_of(tensor)))
        digests[role].update(whole[role])

    def weight() -> Iterator[bytes]:
        for chunk in data.read(range_of(recipe.weight)):
            digests["weight"].update(chunk)
            yield chunk

    pieces = shipped(recipe, weight(), whole.get("scale", b""), whole.get("global_scale", b""))
    sha256 = write(recipe.name, pieces)
    sources = tuple(piece(role, tensor, digests[role].hexdigest()) for role, tensor in recipe.sources)
    nbytes = Entry(recipe.name, recipe.dtype, recipe.shape).nbytes
    return TensorRecord(recipe.name, recipe.dtype, recipe.shape, nbytes, sha256, sources, recipe.kind)


def _has_nan_scale(recipe: Recipe, data: TensorBytes) -> bool:
    if recipe.scale is None:
        return False
    whole = {role: b"".join(data.read(range_of(tensor))) for role, tensor in recipe.sources[1:]}
    return has_nan_scale(recipe, whole["scale"], whole.get("global_scale", b""))


def _metadata(
    found: Inspection, recipes: Sequence[Recipe], shared: Sequence[SharedTensor], tool: str
) -> SidecarMetadata:
    return SidecarMetadata(
        layout=found.head.layout.name,
        num_heads=found.head.num_heads,
        conventions=found.head.layout.conventions,
        source_repo=found.source.repo,
        source_sha=found.source.sha,
        source_dtypes=tuple(sorted({recipe.weight.dtype for recipe in recipes})),
        shared_tensors=tuple(one.name for one in shared),
        tool=tool,
        trunk=found.checkpoint.fingerprint(),
    )


def _described(found: Inspection, name: str) -> SourceFile:
    stored = found.source.files.stat(name)
    return SourceFile(name, stored.nbytes, stored.sha256)


def _copy(source: Source, name: str, folder: Path) -> FileRecord:
    """A licence file, byte for byte."""
    return write_file(folder / name, read_small(source.files, name))


def _write_card(folder: Path, manifest: Manifest) -> None:
    write_file(folder / CARD_FILE, render(manifest))
