"""Model and head for a command, with progress: the part that `run` and `bench` share."""

import gc
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cli.options import read_conventions
from cli.program import INTERRUPTS
from cli.render import Reporter
from skulk_core.catalog import Catalog
from skulk_core.errors import NoDraftHead, SkulkError
from skulk_core.hub.refs import parse_model, parse_sidecar
from skulk_core.hub.sources import ModelSource, locate_model
from skulk_core.runtime import blas
from skulk_core.runtime.device import auto_dtype, load_mlx

if TYPE_CHECKING:
    from skulk_core.heads.loading import LoadedHead
    from skulk_core.models.loading import LoadedModel

# drafted where neither the command line nor the catalog says more; one token pays on almost every model measured
DEFAULT_DEPTH = 1


@dataclass(frozen=True)
class Choice:
    """What the command line said about model and head. ``depth`` None: the catalog's, else `DEFAULT_DEPTH`."""

    model: str
    sidecar: str | None
    depth: int | None
    dtype: str
    head_precision: str
    conventions: list[str] | None
    allow_plain: bool


@dataclass(frozen=True)
class Loaded:
    """What was loaded. Without a head ``depth`` is 0 and ``plain_because`` says why."""

    source: ModelSource
    model: "LoadedModel"
    head: "LoadedHead | None"
    head_name: str | None
    depth: int
    plain_because: str | None


def load(choice: Choice, reporter: Reporter) -> Loaded:
    """Find, download and load what ``choice`` names."""
    loaded = _load(choice, reporter)
    # what was imported and loaded stays to the end: the collector need not walk it in every round
    gc.collect()
    gc.freeze()
    return loaded


def _load(choice: Choice, reporter: Reporter) -> Loaded:
    overrides = read_conventions(choice.conventions)
    ref = parse_model(choice.model)
    sidecar = None if choice.sidecar is None else parse_sidecar(choice.sidecar)
    catalog = Catalog.known()
    # importing what computes takes seconds, too
    reporter.step(f"loading {ref}")
    load_mlx()
    # a prompt that is too long, for one, is told of by us
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    from skulk_core.heads.finding import HeadFound, NoHead, find_head
    from skulk_core.heads.loading import load_head
    from skulk_core.models import loading

    INTERRUPTS.check()
    source = locate_model(ref, reporter.bytes)
    reporter.step(f"loading {ref}")
    dtype = auto_dtype() if choice.dtype == "auto" else choice.dtype
    model = loading.load(source.folder, dtype)
    blas.set_threads(blas.threads_for(model.target.hidden_size))
    reporter.detail(f"model: {source} ({source.folder}), {model.nbytes / 1e6:,.0f} MB of weights, dtype {dtype}")
    if choice.depth == 0:
        return Loaded(source, model, None, None, 0, "plain decoding was asked for")
    try:
        found: HeadFound | NoHead = find_head(source, model.headers, sidecar, catalog, reporter.bytes)
        for step in found.steps:
            reporter.detail(f"catalog: {step}")
        if isinstance(found, NoHead):
            if choice.depth is None or choice.allow_plain:
                return Loaded(source, model, None, None, 0, f"no draft head in {' or '.join(found.looked_in)}")
            raise NoDraftHead(str(source), found.looked_in)
        if choice.depth is None and found.default_depth == 0:
            return Loaded(source, model, None, None, 0, "the catalog says that this model decodes faster without")
        head = load_head(
            model, found.files, precision=choice.head_precision, overrides=overrides, known=found.conventions
        )
    except SkulkError as error:
        if not choice.allow_plain:
            raise
        return Loaded(source, model, None, None, 0, f"the draft head cannot be used: {error}")
    reporter.detail(f"head: {found.name} ({found.because}), {head.nbytes / 1e6:,.1f} MB, precision {head.precision}")
    conventions = ", ".join(f"{name} {value}" for name, value in asdict(head.conventions).items())
    reporter.detail(f"conventions from {head.conventions_from}: {conventions}")
    depth = next(d for d in (choice.depth, found.default_depth, DEFAULT_DEPTH) if d is not None)
    return Loaded(source, model, head, found.name, depth, None)
