"""Downloads: what of a repository a run needs, into huggingface_hub's own cache.

Cache, login, retries, resuming and offline mode are the client's; `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and
`HF_HUB_OFFLINE` mean what its documentation says. Nothing here prints.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from skulk_core.errors import HubError, HubUnreachable
from skulk_core.formats.head_names import is_assistant
from skulk_core.formats.sidecar import SIDECAR_FILE
from skulk_core.hub.client_errors import CLIENT_ERRORS, CONNECTION_ERRORS, translate
from skulk_core.hub.gguf_names import is_model, preferred
from skulk_core.hub.headers import INDEX_FILE, index_files
from skulk_core.hub.model_config import CONFIG_FILE, NoConfig, read_model_config
from skulk_core.hub.progress import OnProgress, bar_class, interruptible
from skulk_core.hub.refs import RepoRef

# Patterns are matched against whole paths, `*` across slashes.
_MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", "README.md")
_WEIGHTS = (CONFIG_FILE, "*.safetensors", INDEX_FILE)
_OTHER_FORMATS = ("original/*", "onnx/*", "openvino/*", "gguf/*", "consolidated*.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit on disk. `path` is their folder in the cache: read only, shared with other programs.

    `gguf` is the one file that is the whole model, where the repository has it in no other format.
    """

    path: Path
    repo: str
    sha: str
    gguf: Path | None = None


def fetch_model(ref: RepoRef, on_progress: OnProgress | None = None) -> Snapshot:
    """Configuration, tokenizer, weights and card of a model; no other weight formats.

    Of a repository without safetensors, its GGUF file, if it has one, or one alone of a kind that can be read. Without
    a network a complete copy in the cache is used. Files that are complete in the cache are not fetched again. Raises
    `RepoNotFound`, `RevisionNotFound`, `HubUnreachable`, another `HubError`, or `FileError` for the disk.
    """
    snapshot = _fetch(ref, _MODEL_FILES, _OTHER_FORMATS, on_progress)
    missing = _missing_from_model(snapshot.path)
    names = [] if missing is None else [name for name in listed_files(snapshot) if is_model(name)]
    if not names or any(snapshot.path.glob("model*.safetensors")):
        _require(snapshot, ref, missing)
        return snapshot
    name = preferred(names)
    if name is None:
        found = f"has {len(names)} GGUF models: {', '.join(names)}"
        raise HubError(ref.repo, f"{found}; fetch one with `hf download` and give its path")
    return _fetch_gguf(RepoRef(ref.repo, snapshot.sha), name, on_progress)


def cached_model(ref: RepoRef) -> Snapshot | None:
    """The model's files in the cache, if none is missing; nobody is asked."""
    try:
        path = Path(snapshot_download(ref.repo, revision=ref.revision, local_files_only=True))
    except CLIENT_ERRORS:
        return None
    return Snapshot(path, ref.repo, path.name) if _missing_from_model(path) is None else None


def fetch_without_weights(ref: RepoRef, on_progress: OnProgress | None = None) -> Snapshot:
    """Everything of a model but its weights. Raises as `fetch_model` does."""
    snapshot = _fetch(ref, _MODEL_FILES, (*_OTHER_FORMATS, "*.safetensors"), on_progress)
    _require(snapshot, ref, None if (snapshot.path / CONFIG_FILE).is_file() else CONFIG_FILE)
    return snapshot


def _fetch_gguf(ref: RepoRef, name: str, on_progress: OnProgress | None) -> Snapshot:
    snapshot = fetch_files(ref, (name,), on_progress)
    return replace(snapshot, gguf=snapshot.path / name)


def listed_files(snapshot: Snapshot) -> list[str]:
    """Every file of the commit, as far as the client knows; from a cache without a listing, those that are there."""
    try:
        tree = get_cached_repo_tree(snapshot.repo, revision=snapshot.sha)
    except CachedRepoTreeNotFoundError:
        return sorted(str(file.relative_to(snapshot.path)) for file in snapshot.path.rglob("*") if file.is_file())
    return sorted(file.path for file in tree)


def fetch_sidecar(ref: RepoRef, on_progress: OnProgress | None = None) -> Snapshot:
    """The one file of a sidecar repository, `mtp.safetensors` in `Snapshot.path`. Raises as `fetch_model` does."""
    snapshot = _fetch(ref, (SIDECAR_FILE,), (), on_progress)
    _require(snapshot, ref, None if (snapshot.path / SIDECAR_FILE).is_file() else SIDECAR_FILE)
    return snapshot


def fetch_assistant(ref: RepoRef, on_progress: OnProgress | None = None) -> Snapshot:
    """Configuration and weights of a draft model. Raises as `fetch_model` does."""
    snapshot = _fetch(ref, _WEIGHTS, _OTHER_FORMATS, on_progress)
    _require(snapshot, ref, _missing_from_model(snapshot.path))
    return snapshot


def fetch_head(ref: RepoRef, on_progress: OnProgress | None = None) -> Snapshot:
    """What a repository has to draft with: its sidecar, or all of it if it is an assistant. Raises as `fetch_model`.

    Of a repository that is neither nothing but the configuration is fetched.
    """
    snapshot = _fetch(ref, (SIDECAR_FILE, CONFIG_FILE), (), on_progress)
    if (snapshot.path / SIDECAR_FILE).is_file():
        return snapshot
    config = read_model_config(snapshot.path)
    if not isinstance(config, NoConfig) and is_assistant(config.get("model_type")):
        return fetch_assistant(RepoRef(ref.repo, snapshot.sha), on_progress)
    _require(snapshot, ref, f"{SIDECAR_FILE}, and is no draft model")
    return snapshot


def fetch_files(ref: RepoRef, names: Sequence[str], on_progress: OnProgress | None = None) -> Snapshot:
    """The files `names` of a repository. Raises as `fetch_model` does, also if one of them is not there."""
    snapshot = _fetch(ref, tuple(glob.escape(name) for name in names), (), on_progress)
    _require(snapshot, ref, next((name for name in names if not (snapshot.path / name).is_file()), None))
    return snapshot


def _fetch(
    ref: RepoRef, wanted: tuple[str, ...], unwanted: tuple[str, ...], on_progress: OnProgress | None
) -> Snapshot:
    cancel = Event()
    bars = bar_class(str(ref), on_progress, cancel)

    def download(local_files_only: bool = False) -> str:
        return snapshot_download(
            ref.repo,
            revision=ref.revision,
            allow_patterns=list(wanted),
            ignore_patterns=list(unwanted),
            tqdm_class=bars,
            local_files_only=local_files_only,
        )

    try:
        path = Path(interruptible(download, cancel))
    except CONNECTION_ERRORS as error:
        # The client looks into its cache when it cannot connect, but not when a connection breaks.
        try:
            path = Path(download(local_files_only=True))
        except CLIENT_ERRORS:
            raise translate(error, ref) from error
    except CLIENT_ERRORS as error:
        raise translate(error, ref) from error
    return Snapshot(path, ref.repo, path.name)


def _missing_from_model(folder: Path) -> str | None:
    """The first file a model cannot do without and that is not there."""
    if not (folder / CONFIG_FILE).is_file():
        return CONFIG_FILE
    index = folder / INDEX_FILE
    if index.is_file():
        return next((file for file in index_files(index) if not (folder / file).is_file()), None)
    return None if any(folder.glob("*.safetensors")) else "safetensors weights"


def _require(snapshot: Snapshot, ref: RepoRef, missing: str | None) -> None:
    """Raise if a file is missing: from the repository, or only from a cache that nobody could complete."""
    if missing is None:
        return
    try:
        get_cached_repo_tree(ref.repo, revision=snapshot.sha)
    except CachedRepoTreeNotFoundError:
        # Without a listing of the repository the client takes any folder for complete.
        raise HubUnreachable(
            ref.repo, f"the Hub cannot be reached, and the copy in the cache lacks {missing}"
        ) from None
    raise HubError(ref.repo, f"the repository has no {missing}")
