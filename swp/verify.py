"""Whether a sidecar is what its manifest says, and whether its manifest is true: made again from the source, compared.

Two comparisons for every tensor: the bytes in the file with the manifest, and what the source gives now, by the same
recipes that an extraction uses, with the manifest. A changed file fails the first. A file and a manifest changed
together, or an extraction that was wrong, fail the second. Licence files are compared with upstream's, tensors that the
manifest calls the trunk's with the trunk.

A folder that was extracted from a local copy says that its source is asserted, and cannot be published. Only `verify`,
and only after every comparison held, replaces that by `verified`, in one atomic rewrite of the manifest. A later change
of any file no longer fits the manifest's digests, and a new extraction writes `asserted` again. Whoever writes the word
by hand claims what anybody's `swp verify` of the published sidecar refutes.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

from skulk_core.catalog import Catalog
from skulk_core.errors import ModelNameError, RepoNotFound
from skulk_core.formats.provenance import (
    MANIFEST_FILE,
    Manifest,
    Origin,
    SharedTensor,
    SourceFile,
    TensorRecord,
    read_manifest,
)
from skulk_core.formats.sidecar import SIDECAR_FILE
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.ranges import HubFiles, read_small
from skulk_core.hub.refs import FolderRef, RepoRef, parse_model
from skulk_core.hub.snapshot import fetch_files
from swp.card import CARD_FILE, render
from swp.check import Check, Checks, Subject, check_folder
from swp.comparing import find_shared
from swp.dequant import needs_torch, require_torch
from swp.extract import DEFAULT_JOBS, bytes_of, derive
from swp.inspection import Inspection, Source, inspect_source, range_of, ranges_of
from swp.out_folder import locked, write_file

_COMPARING = "comparing with the source"
_SAME = "same as made again from the source"


@dataclass(frozen=True)
class Verification:
    """What was compared. `now_verified`: the folder's manifest said "asserted" before, and says "verified" now."""

    name: str
    source: str
    checks: tuple[Check, ...]
    now_verified: bool = False

    @property
    def ok(self) -> bool:
        return Checks(self.checks).ok

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        checks = [{"subject": c.subject.value, "name": c.name, "ok": c.ok, "detail": c.detail} for c in self.checks]
        head = {"name": self.name, "source": self.source, "ok": self.ok, "now_verified": self.now_verified}
        return {**head, "checks": checks}


@dataclass(frozen=True)
class _Run:
    """What every step needs. `cancel` stops downloads, `on_wait` is told of every wait for the Hub."""

    catalog: Catalog
    cancel: Event
    num_jobs: int
    on_progress: OnProgress | None
    on_wait: Callable[[str], None]


@dataclass(frozen=True)
class _Remade:
    """The same head, taken from the source once more; nothing of it is on disk."""

    found: Inspection
    tensors: Mapping[str, TensorRecord]
    shared: Mapping[str, SharedTensor]
    licences: Mapping[str, str]
    files: tuple[SourceFile, ...]


def verify(
    target: str,
    catalog: Catalog,
    cancel: Event,
    *,
    num_jobs: int = DEFAULT_JOBS,
    on_progress: OnProgress | None = None,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Verify `ORG/NAME[@REVISION]` or a folder. `cancel` stops downloads, `on_wait` is told of every wait for the Hub.

    Raises `ModelNameError` for what is neither, and the errors of reading, fetching and converting; a difference is no
    error but a check that failed.
    """
    ref, run = parse_model(target), _Run(catalog, cancel, num_jobs, on_progress, on_wait)
    match ref:
        case RepoRef():
            folder, manifest = _fetch(ref, run)
            checks, _ = _compare(folder, manifest, run)
            return Verification(target, manifest.source, checks)
        case FolderRef(path):
            with locked(path, on_progress):
                return _verify_folder(path, run)
        case _:
            raise ModelNameError(target, "the demo's sidecar is part of the installation; it has no manifest")


def _fetch(ref: RepoRef, run: _Run) -> tuple[Path, Manifest]:
    """Manifest and files of a published sidecar, all of one commit."""
    files = HubFiles.at(ref, run.cancel, run.on_wait)
    if MANIFEST_FILE not in files.names:
        raise RepoNotFound(ref.repo, f"holds no {MANIFEST_FILE}: it is no sidecar of ours")
    first = fetch_files(RepoRef(files.repo, files.sha), (MANIFEST_FILE,), run.on_progress)
    manifest = read_manifest(first.path)
    names = (MANIFEST_FILE, *(file.name for file in manifest.files))
    return fetch_files(RepoRef(files.repo, files.sha), names, run.on_progress).path, manifest


def _verify_folder(folder: Path, run: _Run) -> Verification:
    manifest = read_manifest(folder)
    checks, remade = _compare(folder, manifest, run)
    asserted = manifest.origin is Origin.ASSERTED
    if asserted and Checks(checks).ok:
        own_card = _is_rendered(folder, manifest)
        manifest = replace(manifest, origin=Origin.VERIFIED, source_files=remade.files)
        write_file(folder / MANIFEST_FILE, manifest.to_json())
        if own_card:
            write_file(folder / CARD_FILE, render(manifest))
        return Verification(str(folder), manifest.source, checks, now_verified=True)
    return Verification(str(folder), manifest.source, checks)


def _is_rendered(folder: Path, manifest: Manifest) -> bool:
    """Whether the folder's card is as it was made; one that somebody wrote into is left to them."""
    try:
        return (folder / CARD_FILE).read_bytes() == render(manifest).encode("utf-8")
    except OSError:
        return True


def _compare(folder: Path, manifest: Manifest, run: _Run) -> tuple[tuple[Check, ...], _Remade]:
    here = check_folder(folder, manifest).checks
    remade = _remake(manifest, run)
    with_source = (
        _compare_facts(manifest, remade),
        *_compare_tensors(manifest, remade),
        *_compare_licences(manifest, remade),
    )
    # one line for each thing: how it differs, or that it does not
    merged = {(check.subject, check.name): check for check in here}
    for check in with_source:
        known = merged.get((check.subject, check.name))
        if known is None or known.ok:
            merged[check.subject, check.name] = check
    return tuple(merged.values()), remade


def _remake(manifest: Manifest, run: _Run) -> _Remade:
    files = HubFiles.at(RepoRef(manifest.source_repo, manifest.source_sha), run.cancel, run.on_wait)
    source = Source(files, manifest.source_repo, manifest.source_sha, Origin.FETCHED)
    found = inspect_source(source, manifest.layout_asked, run.catalog)
    if any(needs_torch(recipe) for recipe in found.recipes):
        require_torch()
    said = {shared.name for shared in manifest.shared}
    twins = tuple(twin for twin in found.twins if twin.head.name in said)
    with ExitStack() as stack:
        data = bytes_of(source, run.num_jobs, run.cancel, stack)
        data.prepare(ranges_of(found.recipes) + [range_of(twin.trunk) for twin in twins], run.on_progress)
        shared = {one.name: one for one in find_shared(twins, data)}
        tensors = {}
        for number, recipe in enumerate(found.recipes):
            if run.on_progress is not None:
                run.on_progress(_COMPARING, number, len(found.recipes))
            tensors[recipe.name] = derive(recipe, data, _sha256_of)
        data.discard()
    licences = {name: hashlib.sha256(read_small(files, name)).hexdigest() for name in found.licence_files}
    there = [files.stat(file.name) for file in manifest.source_files if file.name in files.names]
    return _Remade(found, tensors, shared, licences, tuple(SourceFile(f.name, f.nbytes, f.sha256) for f in there))


def _sha256_of(_: str, chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _compare_facts(manifest: Manifest, remade: _Remade) -> Check:
    found = remade.found
    said: dict[str, tuple[object, object]] = {
        "layout": (manifest.layout, found.head.layout.name),
        "number of heads": (manifest.num_heads, found.head.num_heads),
        "conventions": (manifest.conventions, found.head.layout.conventions),
        "trunk": (manifest.trunk, found.checkpoint.fingerprint()),
        "licence": (manifest.licence, found.licence),
        "model": (manifest.model_facts, found.checkpoint.facts()),
        "source files": (
            [(file.name, file.nbytes) for file in manifest.source_files],
            [(file.name, file.nbytes) for file in remade.files],
        ),
    }
    different = [name for name, (one, other) in said.items() if one != other]
    if different:
        return Check(Subject.METADATA, MANIFEST_FILE, False, f"says another {', '.join(different)} than the source")
    return Check(Subject.METADATA, MANIFEST_FILE, True, "says of the source what the source says")


def _compare_tensors(manifest: Manifest, remade: _Remade) -> Iterator[Check]:
    for record in manifest.tensors:
        yield _compare_tensor(record, remade.tensors.get(record.name))
    for shared in manifest.shared:
        same = remade.shared.get(shared.name) == shared
        detail = f"same as the trunk's {shared.trunk_name}" if same else f"is not the trunk's {shared.trunk_name}"
        yield Check(Subject.SHARED, shared.name, same, detail)
    accounted = {record.name for record in manifest.tensors} | {shared.name for shared in manifest.shared}
    for name in remade.tensors:
        if name not in accounted:
            yield Check(Subject.TENSOR, name, False, "belongs to the source's head, and is missing here")


def _compare_tensor(record: TensorRecord, remade: TensorRecord | None) -> Check:
    if remade is None:
        return Check(Subject.TENSOR, record.name, False, "the source's head has no such tensor")
    if record.sha256 != remade.sha256:
        detail = f"made again from the source it has the sha256 {remade.sha256}, here {record.sha256}"
        return Check(Subject.TENSOR, record.name, False, detail)
    if record != remade:
        return Check(Subject.TENSOR, record.name, False, "the bytes are right, but not where the manifest says")
    return Check(Subject.TENSOR, record.name, True, _SAME)


def _compare_licences(manifest: Manifest, remade: _Remade) -> Iterator[Check]:
    here = {file.name: file.sha256 for file in manifest.files if file.name != SIDECAR_FILE}
    for name in sorted({*here, *remade.licences}):
        same = here.get(name) == remade.licences.get(name)
        if same:
            detail = "same as upstream's"
        elif name in here and name in remade.licences:
            detail = "is not upstream's"
        else:
            detail = "upstream has no such file" if name in here else "upstream has it, and it is missing here"
        yield Check(Subject.FILE, name, same, detail)
