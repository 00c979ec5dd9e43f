"""What a run of a model would go by, from what is written down and on this disk: nothing is loaded or fetched for it.

Of a model on the Hub, its card there may be read to find its base.
"""

from dataclasses import dataclass

from skulk_core.catalog.lookup import Catalog
from skulk_core.catalog.resolve import resolve
from skulk_core.catalog.subject import Subject
from skulk_core.errors import FileError, OptionError
from skulk_core.formats.cards import AUTO, Card
from skulk_core.formats.catalog import HeadEntry
from skulk_core.formats.head_names import belongs_to_head, files_of_head
from skulk_core.hub.headers import read_checkpoint_headers
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef, RepoRef, parse_sidecar
from skulk_core.hub.snapshot import cached_model
from skulk_core.hub.sources import ModelSource, locate_model
from skulk_core.runtime.device import auto_dtype

_Ref = DemoRef | FolderRef | FileRef | RepoRef
_CARD = "your card"


@dataclass(frozen=True)
class Setting:
    """What a run takes where the command line is silent, and who says so in words. None: nothing is known."""

    value: int | str | None
    because: str


@dataclass(frozen=True)
class Foreseen:
    """What a run would go by."""

    depth: Setting
    sidecar: Setting
    dtype: Setting
    head_precision: Setting


@dataclass(frozen=True)
class _Head:
    """The draft head that would be taken; ``depth`` None where nobody says how deep to draft with it."""

    name: Setting
    depth: Setting | None = None


def foresee(ref: _Ref, catalog: Catalog, num_hosts: int, demo_depth: int) -> Foreseen:
    """What `skulk run` takes on ``num_hosts`` hosts. Raises `FileError` for a folder that cannot be read."""
    card = catalog.card_of(ref) or Card(model=str(ref))
    head = _head(ref, card, catalog, num_hosts, demo_depth)
    own_depth = card.depth(num_hosts)
    if own_depth is not None:
        depth = Setting(own_depth, _CARD)
    elif head.name.value is None:
        depth = Setting(0, "no draft head is known")
    else:
        depth = head.depth or Setting(AUTO, "nobody says otherwise; chosen round by round")
    return Foreseen(depth, head.name, _dtype(card), _precision(card))


def _head(ref: _Ref, card: Card, catalog: Catalog, num_hosts: int, demo_depth: int) -> _Head:
    """As `heads.finding` looks for it: the person's choice, the checkpoint's own, one beside it, the catalog's."""
    if card.sidecar is not None:
        try:
            chosen = parse_sidecar(card.sidecar)
        except (FileError, OptionError) as error:
            return _Head(Setting(card.sidecar, f"{_CARD}, but: {error.reason}"))
        entry = catalog.entry_of(chosen.repo) if isinstance(chosen, RepoRef) else None
        return _Head(Setting(card.sidecar, _CARD), _listed_depth(entry, num_hosts))
    if isinstance(ref, DemoRef):
        return _Head(Setting("demo sidecar", "comes with the demo"), Setting(demo_depth, "measured for the demo"))
    source = _on_disk(ref)
    own = None if source is None else _own_head(source)
    if own is not None:
        return _Head(own)
    subject = Subject.parse(str(ref)) if source is None else Subject.of(source)
    found = resolve(subject, catalog.heads)
    unseen = "" if source is not None else "; unless the checkpoint, which is not on this disk, carries one"
    if not found.entries:
        return _Head(Setting(None, f"none in the catalog: {found.because}{unseen}"))
    entry = found.entries[0]
    return _Head(Setting(entry.repo, f"the catalog: {found.because}{unseen}"), _listed_depth(entry, num_hosts))


def _on_disk(ref: _Ref) -> ModelSource | None:
    """The checkpoint, if every file of it is here."""
    if not isinstance(ref, RepoRef):
        return locate_model(ref)
    snapshot = cached_model(ref)
    return None if snapshot is None else ModelSource(ref, snapshot.path, snapshot.sha, snapshot.gguf)


def _own_head(source: ModelSource) -> Setting | None:
    """The head in the checkpoint's own files, or in a file beside them."""
    if isinstance(source.ref, FileRef):
        return None
    try:
        model = () if source.gguf is not None else read_checkpoint_headers(source.folder).model
    except FileError:
        if isinstance(source.ref, RepoRef):
            # a repository of GGUF files: which one is meant is known when it is fetched
            return None
        raise
    if any(belongs_to_head(tensor.name) for tensor in model):
        return Setting(str(source), "the checkpoint carries it")
    beside = files_of_head((file.name for file in source.folder.iterdir()), {tensor.file.name for tensor in model})
    return Setting(str(source.folder / beside[0]), "beside the checkpoint") if beside else None


def _listed_depth(entry: object, num_hosts: int) -> Setting | None:
    depth = entry.depth(num_hosts) if isinstance(entry, HeadEntry) else None
    return (
        None if depth is None or not isinstance(entry, HeadEntry) else Setting(depth, f"the catalog, of {entry.base}")
    )


def _dtype(card: Card) -> Setting:
    if card.dtype is not None:
        return Setting(card.dtype, _CARD)
    if auto_dtype() == "float32":
        return Setting("float32", "a CPU is fast with nothing else")
    return Setting(AUTO, "as the checkpoint holds it")


def _precision(card: Card) -> Setting:
    if card.head_precision is not None:
        return Setting(card.head_precision, _CARD)
    return Setting(AUTO, "as the model, but never below 8 bits, nor packed on a CPU")
