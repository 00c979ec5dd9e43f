"""How a head that was found is wired: as somebody says, as was measured before, or as is measured now, and kept."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from skulk_core.catalog import AssistantEntry, Catalog, SidecarEntry, Subject, add_entry, resolve, user_catalog
from skulk_core.errors import ConventionsUnknown, EntryExists, FileError
from skulk_core.formats.catalog import is_repo
from skulk_core.formats.probes import ProbeRecord, read_probes, with_probe
from skulk_core.heads.files import HeadFiles
from skulk_core.heads.finding import HeadFound
from skulk_core.heads.loading import AS_RELEASED, fitting_layout, released_conventions, stated
from skulk_core.heads.probe import probe
from skulk_core.heads.verdict import Probe
from skulk_core.hub.sources import ModelSource
from skulk_core.models.loading import LoadedModel
from skulk_core.runtime.userfiles import config_dir, write_atomically
from skulk_core.types import CONVENTION_NAMES, Conventions

# What a card would say of a licence that nobody looked up; also the Hub's own word for it.
_LICENCE_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Wiring:
    """Conventions and where they are from, both for `load_head`; None where it has to settle them by itself.

    ``probe`` is what was measured just now, ``kept_in`` the file that keeps it, ``not_kept`` why none does.
    """

    conventions: Conventions | None
    conventions_from: str = "catalog"
    probe: Probe | None = None
    kept_in: Path | None = None
    not_kept: str = ""


def settle(
    model: LoadedModel,
    source: ModelSource,
    found: HeadFound,
    catalog: Catalog,
    *,
    precision: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Wiring:
    """Conventions for a head of which neither its file, nor its family, nor the catalog says how it is wired.

    It is measured once; the catalog of the person who runs this, or `probes.json` beside it, keeps the answer.
    ``overrides`` are the user's: where they leave something open, only that is measured, and nothing is kept.
    ``progress`` is called between passes. Raises as `probe` does, and `HeadDoesNotFit`.
    """
    overrides = overrides or {}
    if stated(model, found.files, found.conventions) is not None or set(overrides) == set(CONVENTION_NAMES):
        return Wiring(found.conventions)
    layout = fitting_layout(model, found.files)
    released = released_conventions(model, layout)
    if overrides and released is not None:
        return Wiring(None)
    path = probes_file()
    key = _digest_of_head(found.files), _digest_of_trunk(model)
    known = next((one for one in read_probes(path) if (one.head, one.trunk) == key), None)
    if known is not None and not overrides:
        return Wiring(known.conventions, f"a measurement on this machine, {known.agreement:.0%} of first drafts right")
    try:
        measured = probe(model, found.files, precision=precision, fixed=overrides, progress=progress)
    except ConventionsUnknown:
        if released is None:
            raise
        return Wiring(released, f"{AS_RELEASED}; the model writes too little to measure by")
    picked = measured.require(found.files.origin)
    wiring = Wiring(picked.conventions, f"a measurement, {picked.first:.0%} of first drafts right", measured)
    if overrides:
        return wiring
    record = ProbeRecord(*key, picked.conventions, picked.first, measured.num_tokens)
    try:
        return replace(wiring, kept_in=_keep(source, found, layout.name, catalog, record, path))
    except (FileError, EntryExists) as error:
        return replace(wiring, not_kept=str(error))


def probes_file() -> Path:
    """Where measured conventions are kept for heads that the catalog has no name for. It need not exist."""
    return config_dir() / "probes.json"


def _keep(
    source: ModelSource, found: HeadFound, layout: str, catalog: Catalog, record: ProbeRecord, probes: Path
) -> Path:
    """Keep what was measured, in the catalog if it can be named there; the file that has it now.

    A catalog entry of the head is completed. A new one is made only where the model has no other head in the catalog:
    a measurement must not change which head is taken.
    """
    entry = found.entry
    if entry is None and found.snapshot is not None and not resolve(Subject.of(source), catalog.heads).entries:
        base = next((name for name in Subject.of(source).names if is_repo(name)), None)
        if base is not None:
            repo, sha = found.snapshot.repo, found.snapshot.sha
            kind = SidecarEntry if found.files.config is None else AssistantEntry
            entry = kind(base=base, repo=repo, licence=_LICENCE_UNKNOWN, revision=sha, layout=layout)
    if entry is None:
        # of two programs that measure at the same time one may be forgotten, and will measure again
        write_atomically(probes, with_probe(read_probes(probes), record))
        return probes
    path = user_catalog()
    add_entry(path, replace(entry, conventions=record.conventions), replace=found.entry is not None)
    return path


def _digest_of_head(files: HeadFiles) -> str:
    """Of the tensors alone: the same for a file that was renamed, or given metadata."""
    digest = hashlib.sha256()
    for name, tensor in sorted(files.read().items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(_bytes_of(tensor))
    return f"sha256:{digest.hexdigest()}"


def _digest_of_trunk(model: LoadedModel) -> str:
    """Of sizes, and of the norm that hidden rows go through: another one for most trunks of the same shape."""
    target = model.target
    sizes = target.hidden_size, target.vocab_size, target.num_layers
    norm: mx.array = target.text_model.model.norm.weight
    return f"sha256:{hashlib.sha256(repr(sizes).encode() + _bytes_of(norm)).hexdigest()}"


def _bytes_of(tensor: mx.array) -> memoryview:
    return np.array(tensor.reshape(-1).view(mx.uint8)).data
