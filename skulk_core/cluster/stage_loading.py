"""Loads what one rank needs: its layers, and on the decider the draft head."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from skulk_core.catalog import Catalog
from skulk_core.cluster.assignment import Assignment, Drafting, Shard
from skulk_core.cluster.identity import Identity, file_digest, identity_of
from skulk_core.errors import ConventionsUnknown, NoDraftHead, ShareError, SkulkError
from skulk_core.heads.base import DraftHead
from skulk_core.heads.finding import HeadFound, NoHead, find_head
from skulk_core.heads.loading import (
    LoadedHead,
    fitting_layout,
    load_head,
    released_conventions,
    require_fit,
    stated,
)
from skulk_core.heads.ngram import NgramHead
from skulk_core.heads.wiring import measured_before, settle
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.refs import parse_sidecar, parse_trunk
from skulk_core.hub.sources import ModelSource
from skulk_core.memory.passes import PassBytes
from skulk_core.models.loading import LoadedModel, held_weights, outline, read_weights
from skulk_core.models.shape import passes_of
from skulk_core.models.stage_source import locate_stage
from skulk_core.runtime import blas

NGRAM_NAME = "prompt lookup"


@dataclass(frozen=True)
class DrafterFacts:
    """What the launcher may say of the decider's head. ``plain_because`` says why there is none.

    ``because`` is why it was taken, ``is_listed`` whether the catalog chose it.
    """

    name: str | None = None
    plain_because: str | None = None
    default_depth: int | None = None
    nbytes: int = 0
    precision: str = ""
    conventions_from: str = ""
    digest: str = ""
    because: str = ""
    is_listed: bool = False


@dataclass(frozen=True)
class LoadedStage:
    """One rank's part of a model, ready to run. ``head`` is the drafter's, None where it has no weights.

    ``passes``: what the rank's passes take.
    """

    model: LoadedModel
    drafter: DraftHead | None
    facts: DrafterFacts
    passes: PassBytes
    head: LoadedHead | None = None


def load_stage(
    assignment: Assignment,
    on_progress: OnProgress | None = None,
    on_found: Callable[[Identity], None] = lambda identity: None,
) -> LoadedStage:
    """Find and load what ``assignment`` names; other layers' weights are never read. Raises `SkulkError`.

    ``on_found`` is told what it is before any weight is read; by then a head that is missing or does not fit was told.
    """
    stage = locate_stage(parse_trunk(assignment.model), assignment.layers, on_progress)
    source = stage.source
    model = outline(source.path, assignment.dtype, assignment.layers, stage.absent)
    # before weights are read, which are stored as so many threads multiply them fastest
    threads = blas.threads_for(model.target.hidden_size)
    blas.set_threads(min(threads, assignment.threads) if assignment.threads else threads)
    identity = identity_of(model.config, _weight_files(source, model))
    sought: HeadFound | NgramHead | DrafterFacts = DrafterFacts()
    if assignment.decides:
        sought = _sought(assignment.drafting, source, model, assignment.size, on_progress)
    on_found(identity)
    is_share = assignment.shard is Shard.TENSOR and assignment.size > 1
    if not is_share:
        read_weights(model)
    # before the layers are cut: its own is made after theirs
    made, facts = _drafter(assignment.drafting, sought, model, assignment.size)
    head = made if isinstance(made, LoadedHead) else None
    drafter = made.head if isinstance(made, LoadedHead) else made
    passes = passes_of(
        model.target,
        writes_scores=mx.default_device() == mx.cpu,
        decides=assignment.decides,
        has_head=head is not None,
        shares=assignment.size if is_share else 1,
    )
    if is_share:
        _take_share(model, assignment)
    return LoadedStage(model, drafter, facts, passes, head)


def _take_share(model: LoadedModel, assignment: Assignment) -> None:
    """Cut this rank's share out of every layer, and read it. Raises `ShareError`."""
    target = model.target
    if not target.divided:
        # the launcher looked before it started anybody
        raise ShareError(target.model_type, f"the layers of {target.model_type} models cannot be divided")
    target.take_share(assignment.rank, assignment.size, decides=assignment.decides)
    for layer in target.layers:
        # one by one: a whole layer is read before a share of it is kept
        mx.eval(layer.parameters())
    mx.eval(held_weights(target))
    target.lay_out()


def _weight_files(source: ModelSource, model: LoadedModel) -> list[Path]:
    return [source.gguf] if source.gguf else sorted({tensor.file for tensor in model.headers.model})


def _sought(
    asked: Drafting, source: ModelSource, model: LoadedModel, num_hosts: int, on_progress: OnProgress | None
) -> HeadFound | NgramHead | DrafterFacts:
    """What is to draft, of which no weight was read, or why nothing is."""
    if asked.how == "none":
        return DrafterFacts(plain_because="plain decoding was asked for")
    if asked.how == "ngram":
        return NgramHead()
    try:
        sidecar = None if asked.sidecar is None else parse_sidecar(asked.sidecar)
        found = find_head(source, model.headers, sidecar, Catalog.known(), on_progress, num_hosts)
        if isinstance(found, NoHead):
            if asked.needed and not asked.allow_plain:
                raise NoDraftHead(str(source), found.looked_in)
            return DrafterFacts(plain_because=f"no draft head in {' or '.join(found.looked_in)}")
        if not asked.needed and found.default_depth == 0:
            return DrafterFacts(plain_because="the catalog says that this model decodes faster without")
        require_fit(model, found.files)
    except SkulkError as error:
        if not asked.allow_plain:
            raise
        return _unusable(error)
    return found


def _unusable(error: SkulkError) -> DrafterFacts:
    return DrafterFacts(plain_because=f"the draft head cannot be used: {error}")


def _drafter(
    asked: Drafting, sought: HeadFound | NgramHead | DrafterFacts, model: LoadedModel, num_hosts: int
) -> tuple[LoadedHead | NgramHead | None, DrafterFacts]:
    match sought:
        case DrafterFacts():
            return None, sought
        case NgramHead():
            return sought, DrafterFacts(NGRAM_NAME)
    try:
        return _head(asked, sought, model, num_hosts)
    except SkulkError as error:
        if not asked.allow_plain:
            raise
        return None, _unusable(error)


def _head(asked: Drafting, found: HeadFound, model: LoadedModel, num_hosts: int) -> tuple[LoadedHead, DrafterFacts]:
    # a trunk in shares is not whole here either
    is_whole = num_hosts == 1
    conventions, known_from = _conventions(asked.overrides, model, found, is_whole=is_whole)
    head = load_head(
        model,
        found.files,
        precision=asked.precision,
        overrides=asked.overrides,
        known=conventions,
        known_from=known_from,
    )
    files = sorted({tensor.file for tensor in found.files.tensors})
    digest = " ".join(file_digest(file) for file in files)
    return head, DrafterFacts(
        name=found.name,
        default_depth=found.default_depth,
        nbytes=head.nbytes,
        precision=head.precision,
        conventions_from=head.conventions_from,
        digest=digest,
        because=found.because,
        is_listed=found.entry is not None and asked.sidecar is None,
    )


def _conventions(overrides: Any, model: LoadedModel, found: HeadFound, *, is_whole: bool) -> tuple[Any, str]:
    """As somebody states them, or as measured before. Nothing is measured where a part of the trunk is missing."""
    if stated(model, found.files, found.conventions) is not None or overrides:
        return found.conventions, "catalog"
    if is_whole:
        wiring = settle(model, found, overrides=overrides)
        return wiring.conventions, wiring.conventions_from
    if (known := measured_before(model, found.files)) is not None:
        return known.conventions, known.conventions_from
    released = released_conventions(model, fitting_layout(model, found.files))
    if released is None:
        raise ConventionsUnknown(
            found.files.origin, "nobody says how it is wired, and a host with a part of the trunk cannot measure it"
        )
    return released, "the family's releases; not measured on several hosts"
