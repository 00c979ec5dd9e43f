"""What a draft head weighs, wherever its files are. No weight is read, and of a repository nothing is fetched whole."""

import json
from dataclasses import dataclass
from threading import Event

from skulk_core.errors import HubError
from skulk_core.formats.head_names import is_assistant
from skulk_core.formats.sidecar import SIDECAR_FILE
from skulk_core.hub.headers import read_headers
from skulk_core.hub.model_config import CONFIG_FILE
from skulk_core.hub.ranges import CheckpointFiles, HubFiles, read_small
from skulk_core.hub.refs import FileRef, FolderRef, RepoRef
from skulk_core.memory.weights import loaded_nbytes

# Published heads of either kind are stored so.
_STORED_ITEM_NBYTES = 2


@dataclass(frozen=True)
class HeadBytes:
    """Bytes of a head once loaded. ``keeps_rows``: whether it has a layer's cache of its own, as no assistant does."""

    nbytes: int
    keeps_rows: bool = True


NO_HEAD = HeadBytes(0, keeps_rows=False)


def weigh_head(
    ref: FileRef | FolderRef | RepoRef, dtype: str, item_nbytes: int, cancel: Event | None = None
) -> HeadBytes:
    """A head's bytes, loaded with ``dtype``, whose numbers have ``item_nbytes``. Raises `FileError`, `HubError`.

    Of a repository the sizes of its files tell.
    """
    match ref:
        case FileRef(path):
            return HeadBytes(sum(loaded_nbytes(tensor, dtype) for tensor in read_headers(path)))
        case FolderRef(path):
            tensors = (tensor for file in sorted(path.glob("*.safetensors")) for tensor in read_headers(file))
            return HeadBytes(sum(loaded_nbytes(tensor, dtype) for tensor in tensors), keeps_rows=False)
    files = HubFiles.at(ref, cancel or Event())
    is_sidecar = SIDECAR_FILE in files.names
    if not is_sidecar and not _is_assistant(files):
        raise HubError(ref.repo, f"the repository has no {SIDECAR_FILE}, and is no draft model")
    weights = [SIDECAR_FILE] if is_sidecar else [name for name in files.names if _is_weights(name)]
    stored = sum(files.stat(name).nbytes for name in weights)
    return HeadBytes(stored * item_nbytes // _STORED_ITEM_NBYTES, keeps_rows=is_sidecar)


def _is_assistant(files: CheckpointFiles) -> bool:
    if CONFIG_FILE not in files.names:
        return False
    try:
        config = json.loads(read_small(files, CONFIG_FILE))
    except ValueError:
        return False
    return isinstance(config, dict) and is_assistant(config.get("model_type"))


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") and "/" not in name
