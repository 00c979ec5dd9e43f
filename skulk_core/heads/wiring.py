"""How a head that was found is wired: as somebody says, as was measured before, or as is measured now, and kept."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from skulk_core.errors import ConventionsUnknown, FileError
from skulk_core.formats.probes import ProbeRecord, read_probes, with_probe
from skulk_core.heads.files import HeadFiles
from skulk_core.heads.finding import HeadFound
from skulk_core.heads.loading import AS_RELEASED, fitting_layout, released_conventions, stated
from skulk_core.heads.probe import probe
from skulk_core.heads.verdict import Probe
from skulk_core.models.loading import LoadedModel
from skulk_core.runtime.userfiles import config_dir, write_atomically
from skulk_core.types import CONVENTION_NAMES, Conventions


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
    found: HeadFound,
    *,
    precision: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Wiring:
    """Conventions for a head of which neither its file, nor its family, nor the catalog says how it is wired.

    It is measured once; `probes.json` keeps the answer by digests, so that it changes neither which head is taken nor
    what a catalog says. Where several ways measured alike, what is said of the one picked says so.
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
    if not overrides and (known := measured_before(model, found.files)) is not None:
        return known
    try:
        measured = probe(model, found.files, precision=precision, fixed=overrides, progress=progress)
    except ConventionsUnknown:
        if released is None:
            raise
        return Wiring(released, f"{AS_RELEASED}; the model writes too little to measure by")
    picked = measured.require(found.files.origin)
    record = ProbeRecord(*_key(model, found.files), picked.conventions, picked.first, measured.num_tokens)
    record = replace(record, alike=len(measured.alike))
    wiring = Wiring(picked.conventions, _said_of(record, "a measurement"), measured)
    if overrides:
        return wiring
    path = probes_file()
    try:
        # of two programs that measure at the same time one may be forgotten, and will measure again
        write_atomically(path, with_probe(read_probes(path), record))
    except FileError as error:
        return replace(wiring, not_kept=str(error))
    return replace(wiring, kept_in=path)


def measured_before(model: LoadedModel, files: HeadFiles) -> Wiring | None:
    """What was measured of this head on this trunk earlier; of the model the final norm is enough."""
    key = _key(model, files)
    known = next((one for one in read_probes(probes_file()) if (one.head, one.trunk) == key), None)
    if known is None:
        return None
    return Wiring(known.conventions, _said_of(known, "a measurement on this machine"))


def probes_file() -> Path:
    """Where measured conventions are kept. It need not exist."""
    return config_dir() / "probes.json"


def _said_of(record: ProbeRecord, measurement: str) -> str:
    said = f"{measurement}, {record.agreement:.0%} of first drafts right"
    if record.alike == 1:
        return said
    return f"{said}; it could not tell {record.alike} ways apart, of which this one is nearest to the releases"


def _key(model: LoadedModel, files: HeadFiles) -> tuple[str, str]:
    return _digest_of_head(files), _digest_of_trunk(model)


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
