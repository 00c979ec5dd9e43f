"""Which files of a model are on this disk already. Asks nobody and downloads nothing."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from skulk_core.errors import ModelNameError
from skulk_core.hub.client_errors import CLIENT_ERRORS
from skulk_core.hub.headers import INDEX_FILE, index_files
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef, parse_trunk
from skulk_core.runtime.resources import demo_folder

_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Presence:
    """A model's files here. `folder` is empty where there is none; `missing` counts weight files its index names."""

    folder: str
    num_files: int = 0
    nbytes: int = 0
    missing: int = 0

    def __str__(self) -> str:
        if not self.folder:
            return "absent"
        whole = "whole" if not self.missing else f"{self.num_files} of {self.num_files + self.missing} files"
        return f"{whole}, {self.nbytes / 1e9:,.2f} GB"


def presence_of(model: str) -> Presence:
    """The weight files on this disk of MODEL, named as on a command line; what cannot be read as one is absent."""
    try:
        ref = parse_trunk(model)
    except ModelNameError:
        return Presence("")
    match ref:
        case DemoRef():
            folder = demo_folder()
        case FolderRef(path):
            folder = path
        case FileRef(path):
            return Presence(str(path.parent), 1, path.stat().st_size)
        case _:
            try:
                folder = Path(snapshot_download(ref.repo, revision=ref.revision, local_files_only=True))
            except CLIENT_ERRORS:
                return Presence("")
    return _in_folder(folder)


def _in_folder(folder: Path) -> Presence:
    files = {file.name: file.stat().st_size for file in folder.iterdir() if file.suffix in _WEIGHTS}
    index = folder / INDEX_FILE
    named = set(index_files(index)) if index.is_file() else set(files)
    there = {name: nbytes for name, nbytes in files.items() if name in named}
    if not named:
        return Presence("")
    return Presence(str(folder), len(there), sum(there.values()), len(named - set(there)))
