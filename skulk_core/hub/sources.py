"""MODEL on the command line → a folder or a GGUF file on this disk."""

from dataclasses import dataclass
from pathlib import Path

from skulk_core.errors import FileError
from skulk_core.hub.gguf_names import is_model, preferred
from skulk_core.hub.model_config import CONFIG_FILE
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef, RepoRef
from skulk_core.hub.snapshot import fetch_model
from skulk_core.runtime.resources import demo_folder


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint on disk. `sha` is the Hub commit it is, empty for what did not come from the Hub.

    `gguf` is the file in `folder` that is the whole model, None for a checkpoint in safetensors.
    """

    ref: DemoRef | FolderRef | FileRef | RepoRef
    folder: Path
    sha: str = ""
    gguf: Path | None = None

    @property
    def path(self) -> Path:
        """What is loaded: the GGUF file, or the folder."""
        return self.gguf or self.folder

    def __str__(self) -> str:
        return f"{self.ref.repo}@{self.sha}" if isinstance(self.ref, RepoRef) else str(self.ref)


def locate_model(ref: DemoRef | FolderRef | FileRef | RepoRef, on_progress: OnProgress | None = None) -> ModelSource:
    """The checkpoint on disk, downloaded if it must be.

    Raises what `fetch_model` raises, and `FileError` for a folder of GGUF files none of which is the obvious one.
    """
    match ref:
        case DemoRef():
            return ModelSource(ref, demo_folder())
        case FileRef(path):
            return ModelSource(ref, path.parent, gguf=path)
        case FolderRef(path):
            return ModelSource(ref, path, gguf=_only_gguf(path))
        case RepoRef():
            snapshot = fetch_model(ref, on_progress)
            return ModelSource(ref, snapshot.path, snapshot.sha, snapshot.gguf)


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF file that a folder without a checkpoint in safetensors is kept for; None if it has no such file."""
    try:
        files = sorted(file.name for file in folder.iterdir())
    except OSError as error:
        raise FileError(folder, error.strerror or str(error)) from error
    if CONFIG_FILE in files and any(name.startswith("model") and name.endswith(".safetensors") for name in files):
        return None
    names = [name for name in files if is_model(name)]
    if not names:
        return None
    name = preferred(names)
    if name is None:
        raise FileError(folder, f"holds {len(names)} GGUF models; name one of them: {', '.join(names)}")
    return folder / name
