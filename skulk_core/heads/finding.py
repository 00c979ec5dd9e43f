"""Where a model's head is: named by the user, with the demo, in or beside the checkpoint, or known to the catalog."""

from dataclasses import dataclass

from skulk_core.catalog import AssistantEntry, Catalog, HeadEntry, SidecarEntry, Subject, resolve
from skulk_core.errors import AssistantMissing, FileError, HubError
from skulk_core.heads.files import HeadFiles, assistant_head, head_beside, head_in, own_head, sidecar_head
from skulk_core.hub.headers import CheckpointHeaders
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.refs import DEFAULT_REVISION, DemoRef, FileRef, FolderRef, RepoRef
from skulk_core.hub.snapshot import Snapshot, fetch_assistant, fetch_head, fetch_sidecar
from skulk_core.hub.sources import ModelSource
from skulk_core.runtime.resources import demo_sidecar
from skulk_core.types import Conventions


@dataclass(frozen=True)
class HeadFound:
    """A head's files, where they are from in words, and what the catalog says of it. `steps` tell how it was found.

    `snapshot` is what of the Hub the files are, `entry` the catalog's; each None if there is none.
    """

    files: HeadFiles
    name: str
    because: str
    conventions: Conventions | None = None
    default_depth: int | None = None
    steps: tuple[str, ...] = ()
    snapshot: Snapshot | None = None
    entry: SidecarEntry | AssistantEntry | None = None


@dataclass(frozen=True)
class NoHead:
    """No head anywhere; `looked_in` says where, `steps` how the catalog was searched."""

    looked_in: tuple[str, ...]
    steps: tuple[str, ...] = ()


BESIDE = "beside the checkpoint"

# Within a tenth of the demo's best on the machine of README's "Measured", with either BLAS.
DEMO_DEPTH = 4


def find_head(
    source: ModelSource,
    headers: CheckpointHeaders,
    sidecar: FileRef | FolderRef | RepoRef | None,
    catalog: Catalog,
    on_progress: OnProgress | None = None,
    num_hosts: int = 1,
) -> HeadFound | NoHead:
    """The head to draft with on ``num_hosts`` hosts; ``sidecar`` is the user's choice and wins.

    Raises `FileError`, `FormatError`, `SidecarError` and the Hub's errors for a head that is known and cannot be had;
    of these `AssistantMissing` for a draft model that the catalog names.
    """
    if sidecar is not None:
        return _chosen(sidecar, catalog, on_progress, num_hosts)
    if isinstance(source.ref, DemoRef):
        return HeadFound(sidecar_head(demo_sidecar()), "demo sidecar", "comes with the demo", None, DEMO_DEPTH)
    own = own_head(headers)
    if own is not None:
        return HeadFound(own, str(source), "the checkpoint carries it")
    # a GGUF file that was named stands among files of other models
    beside = None if isinstance(source.ref, FileRef) else head_beside(headers)
    if beside is not None:
        return HeadFound(beside, str(beside.origin), BESIDE)
    resolution = resolve(Subject.of(source), catalog.heads)
    steps = tuple(map(str, resolution.steps))
    if not resolution.entries:
        return NoHead(("the checkpoint's own files", f"the catalog ({resolution.because})"), steps)
    entry = resolution.entries[0]
    snapshot = _fetched(source, entry, on_progress)
    files = head_in(snapshot.path)
    depth = entry.depth(num_hosts)
    return HeadFound(files, entry.repo, resolution.because, entry.conventions, depth, steps, snapshot, entry)


def _fetched(source: ModelSource, entry: SidecarEntry | AssistantEntry, on_progress: OnProgress | None) -> Snapshot:
    ref = RepoRef(entry.repo, entry.revision or DEFAULT_REVISION)
    if isinstance(entry, SidecarEntry):
        return fetch_sidecar(ref, on_progress)
    try:
        return fetch_assistant(ref, on_progress)
    except (HubError, FileError) as error:
        raise AssistantMissing(str(source), entry.repo, entry.revision, error) from error


def _chosen(
    sidecar: FileRef | FolderRef | RepoRef, catalog: Catalog, on_progress: OnProgress | None, num_hosts: int
) -> HeadFound:
    match sidecar:
        case FileRef(path):
            return HeadFound(sidecar_head(path), str(path), "chosen by --sidecar")
        case FolderRef(path):
            return HeadFound(assistant_head(path), str(path), "chosen by --sidecar")
    snapshot = fetch_head(sidecar, on_progress)
    entry = catalog.entry_of(sidecar.repo)
    files = head_in(snapshot.path)
    if not isinstance(entry, HeadEntry):
        return HeadFound(files, str(sidecar), "chosen by --sidecar", snapshot=snapshot)
    depth = entry.depth(num_hosts)
    return HeadFound(files, str(sidecar), "chosen by --sidecar", entry.conventions, depth, (), snapshot, entry)
