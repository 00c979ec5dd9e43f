"""MODEL on the command line → a folder on this disk."""

from dataclasses import dataclass
from pathlib import Path

from skulk_core.hub.progress import OnProgress
from skulk_core.hub.refs import DemoRef, FolderRef, RepoRef
from skulk_core.hub.snapshot import fetch_model
from skulk_core.runtime.resources import demo_folder


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint on disk. `sha` is the Hub commit it is, empty for what did not come from the Hub."""

    ref: DemoRef | FolderRef | RepoRef
    folder: Path
    sha: str = ""

    def __str__(self) -> str:
        return f"{self.ref.repo}@{self.sha}" if isinstance(self.ref, RepoRef) else str(self.ref)


def locate_model(ref: DemoRef | FolderRef | RepoRef, on_progress: OnProgress | None = None) -> ModelSource:
    """The checkpoint on disk, downloaded if it must be. Raises what `fetch_model` raises."""
    match ref:
        case DemoRef():
            return ModelSource(ref, demo_folder())
        case FolderRef(path):
            return ModelSource(ref, path)
        case RepoRef():
            snapshot = fetch_model(ref, on_progress)
            return ModelSource(ref, snapshot.path, snapshot.sha)
