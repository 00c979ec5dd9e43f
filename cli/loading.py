"""Model and head for a command, with progress: the part that `run` and `bench` share."""

import gc
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from cli.options import read_conventions
from cli.probing import measured_line, measuring
from cli.program import INTERRUPTS
from cli.render import Reporter
from skulk_core.catalog import Catalog
from skulk_core.errors import FileError, NoDraftHead, OptionError, SkulkError
from skulk_core.hub.refs import parse_sidecar, parse_trunk
from skulk_core.hub.sources import ModelSource, locate_model
from skulk_core.runtime import blas
from skulk_core.runtime.blas_advice import remedy, slow_without_being_asked
from skulk_core.runtime.device import auto_dtype, load_mlx

if TYPE_CHECKING:
    from skulk_core.cluster.engine import ClusterEngine
    from skulk_core.heads.base import DraftHead
    from skulk_core.heads.finding import HeadFound
    from skulk_core.heads.loading import LoadedHead
    from skulk_core.hub.refs import FileRef, FolderRef, RepoRef
    from skulk_core.models.loading import LoadedModel

NGRAM = "ngram"
# prompt lookup costs nothing to draft
NGRAM_NAME = "prompt lookup"


@dataclass(frozen=True)
class Choice:
    """What the command line said about model and head.

    ``depth`` None: the catalog's, else ``auto``. ``draft`` is `head`, or `ngram` for prompt lookup instead.
    ``plain_because`` says who asked for a depth of 0.
    """

    model: str
    sidecar: str | None
    depth: int | Literal["auto"] | None
    dtype: str
    head_precision: str
    conventions: list[str] | None
    allow_plain: bool
    draft: str = "head"
    plain_because: str = "plain decoding was asked for"


@dataclass(frozen=True)
class Loaded:
    """What was loaded. Without a head ``depth`` is 0 and ``plain_because`` says why.

    With an ``engine`` the model is spread over its workers, ``model`` is an outline and the head is the decider's.
    """

    source: ModelSource
    model: "LoadedModel"
    head: "LoadedHead | None"
    head_name: str | None
    depth: int | Literal["auto"]
    plain_because: str | None
    drafter: "DraftHead | None" = None
    engine: "ClusterEngine | None" = None

    @property
    def can_draft(self) -> bool:
        """Whether there is something to draft with, here or at the decider of a ring."""
        return self.drafter is not None or (self.engine is not None and self.head_name is not None)


def load(choice: Choice, reporter: Reporter) -> Loaded:
    """Find, download and load what ``choice`` names, as the person's own card says where the command line is silent."""
    loaded = _load(with_card(choice, 1, reporter), reporter)
    # what was imported and loaded stays to the end: the collector need not walk it in every round
    gc.collect()
    gc.freeze()
    return loaded


def load_backend(reporter: Reporter) -> None:
    """Import MLX, and say so if it will be slow for want of a BLAS. Raises `BackendError`, `OptionError`."""
    load_mlx()
    choice = blas.prepare()
    if slow_without_being_asked(choice):
        reporter.note(f"slow: MLX computes with the reference BLAS, because {choice.why}; {remedy(choice)}")


def blas_line() -> str:
    """The BLAS in use, for `--verbose`."""
    choice = blas.prepare()
    threads = "" if choice.threads is None else f", threads {choice.threads}"
    return f"BLAS: {choice.name}{threads} ({choice.path or choice.why})"


def with_card(choice: Choice, num_hosts: int, reporter: Reporter) -> Choice:
    """``choice`` with what the person's own card of the model says of everything that the command line does not.

    Raises `OptionError` for a card whose sidecar is none.
    """
    card = Catalog.known().card_of(parse_trunk(choice.model))
    if card is None:
        return choice
    drafts_by_head = choice.draft != NGRAM
    if card.sidecar is not None and choice.sidecar is None and drafts_by_head:
        try:
            parse_sidecar(card.sidecar)
        except (FileError, OptionError) as error:
            whose = f"your card of {card.model}: sidecar"
            raise OptionError(whose, card.sidecar, f"{error.reason}; see `skulk card edit {choice.model}`") from error
    theirs = choice.depth is None and drafts_by_head and card.depth(num_hosts) == 0
    known = replace(
        choice,
        plain_because=_says_plain(card.model, choice.model, num_hosts) if theirs else choice.plain_because,
        depth=card.depth(num_hosts) if choice.depth is None and drafts_by_head else choice.depth,
        sidecar=card.sidecar if choice.sidecar is None and drafts_by_head else choice.sidecar,
        dtype=card.dtype or choice.dtype if choice.dtype == "auto" else choice.dtype,
        head_precision=card.head_precision or "auto" if choice.head_precision == "auto" else choice.head_precision,
    )
    if known != choice:
        reporter.detail(f"your own card of {card.model} is followed (`skulk card show {choice.model}`)")
    return known


def _says_plain(card: str, model: str, num_hosts: int) -> str:
    hosts = "" if num_hosts == 1 else f" --hosts {num_hosts}"
    return f"your card of {card} says 0; `skulk card set {model} --depth N{hosts}` changes it, --draft-depth N for once"


def _load(choice: Choice, reporter: Reporter) -> Loaded:
    overrides = read_conventions(choice.conventions)
    ref = parse_trunk(choice.model)
    sidecar = None if choice.sidecar is None else parse_sidecar(choice.sidecar)
    is_ngram = choice.depth != 0 and choice.draft == NGRAM
    if is_ngram and sidecar is not None:
        raise OptionError("--draft", NGRAM, "looks tokens up in the text and takes no --sidecar")
    catalog = Catalog.known()
    # importing what computes takes seconds, too
    reporter.step(f"loading {ref}")
    load_backend(reporter)
    # a prompt that is too long, for one, is told of by us
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    from skulk_core.heads.ngram import NgramHead
    from skulk_core.models import loading

    INTERRUPTS.check()
    source = locate_model(ref, reporter.bytes)
    reporter.step(f"loading {ref}")
    dtype = auto_dtype() if choice.dtype == "auto" else choice.dtype
    model = loading.outline(source.path, dtype)
    blas.set_threads(blas.threads_for(model.target.hidden_size))
    reporter.detail(blas_line())
    reporter.detail(f"model: {source} ({source.path}), {model.nbytes / 1e6:,.0f} MB of weights, dtype {dtype}")
    # a head that cannot be had, or does not fit, is told before weights are read for minutes
    found: HeadFound | str = choice.plain_because
    if choice.depth != 0 and not is_ngram:
        found = _sought(choice, source, model, sidecar, catalog, reporter)
        reporter.step(f"loading {ref}")
    loading.read_weights(model)
    if is_ngram:
        return Loaded(
            source, model, None, NGRAM_NAME, "auto" if choice.depth is None else choice.depth, None, NgramHead()
        )
    if isinstance(found, str):
        return Loaded(source, model, None, None, 0, found)
    return _with_head(choice, source, model, found, overrides, reporter)


def _sought(
    choice: Choice,
    source: ModelSource,
    model: "LoadedModel",
    sidecar: "FileRef | FolderRef | RepoRef | None",
    catalog: Catalog,
    reporter: Reporter,
) -> "HeadFound | str":
    """A head that fits the model, or why it decodes plainly. Raises as `find_head` does."""
    from skulk_core.heads.finding import NoHead, find_head
    from skulk_core.heads.loading import require_fit

    try:
        found = find_head(source, model.headers, sidecar, catalog, reporter.bytes)
        for step in found.steps:
            reporter.detail(f"catalog: {step}")
        if isinstance(found, NoHead):
            if choice.depth is None or choice.allow_plain:
                return f"no draft head in {' or '.join(found.looked_in)}"
            raise NoDraftHead(str(source), found.looked_in)
        if choice.depth is None and found.default_depth == 0:
            return "the catalog says that this model decodes faster without"
        require_fit(model, found.files)
        if found.entry is not None and sidecar is None:
            reporter.note(f"drafting with {found.name}: {found.because}")
    except SkulkError as error:
        if not choice.allow_plain:
            raise
        return _unusable(error)
    return found


def _unusable(error: SkulkError) -> str:
    return f"the draft head cannot be used: {error}"


def _with_head(
    choice: Choice,
    source: ModelSource,
    model: "LoadedModel",
    found: "HeadFound",
    overrides: dict[str, object],
    reporter: Reporter,
) -> Loaded:
    from skulk_core.heads.loading import load_head
    from skulk_core.heads.wiring import settle

    try:
        wiring = settle(
            model,
            found,
            precision=choice.head_precision,
            overrides=overrides,
            progress=measuring(reporter),
        )
        if wiring.probe is not None:
            reporter.note(measured_line(found.name, wiring))
        head = load_head(
            model,
            found.files,
            precision=choice.head_precision,
            overrides=overrides,
            known=wiring.conventions,
            known_from=wiring.conventions_from,
        )
    except SkulkError as error:
        if not choice.allow_plain:
            raise
        return Loaded(source, model, None, None, 0, _unusable(error))
    reporter.detail(f"head: {found.name} ({found.because}), {head.nbytes / 1e6:,.1f} MB, precision {head.precision}")
    conventions = ", ".join(f"{name} {value}" for name, value in asdict(head.conventions).items())
    reporter.detail(f"conventions from {head.conventions_from}: {conventions}")
    depth = found.default_depth if choice.depth is None else choice.depth
    return Loaded(source, model, head, found.name, "auto" if depth is None else depth, None, head.head)
