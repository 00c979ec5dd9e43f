"""What a MODEL or a sidecar on the command line names: the demo, something on disk, or a Hub repository."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from skulk_core.errors import FileError, ModelNameError, OptionError
from skulk_core.formats.sidecar import SIDECAR_FILE
from skulk_core.formats.suggest import near_miss

DEMO = "demo"
DEFAULT_REVISION = "main"
GGUF_SUFFIX = ".gguf"

_REPO_MAX_LENGTH = 96  # the Hub's own limit
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9](?:[\w.-]*\w)?", re.ASCII)
_ADDRESS = re.compile(r"[a-z]+://")


@dataclass(frozen=True)
class DemoRef:
    """The small model that is part of the installation."""

    def __str__(self) -> str:
        return DEMO


@dataclass(frozen=True)
class FolderRef:
    """A checkpoint on disk; the folder existed when the name was read."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class FileRef:
    """A sidecar or a GGUF model on disk; the file existed when the name was read."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class RepoRef:
    """A Hub repository at a branch, tag or commit. Nobody has asked the Hub whether it exists."""

    repo: str
    revision: str = DEFAULT_REVISION

    def __str__(self) -> str:
        return self.repo if self.revision == DEFAULT_REVISION else f"{self.repo}@{self.revision}"


def parse_model(text: str) -> DemoRef | FolderRef | RepoRef:
    """Read a MODEL: `demo`, else a folder that exists, else `OWNER/NAME[@REVISION]`.

    `demo` is always the built-in one; a folder of that name is written `./demo`. Raises `ModelNameError`.
    """
    return _parse_model(text, decodes=False)


def parse_trunk(text: str) -> DemoRef | FolderRef | FileRef | RepoRef:
    """Read the MODEL of a command that decodes: as `parse_model` does, or a GGUF file. Raises `ModelNameError`."""
    path = Path(os.path.expanduser(text))
    if path.is_file():
        if path.suffix.lower() == GGUF_SUFFIX:
            return FileRef(path)
        reason = f"is a file; a model is a folder with config.json, or a file *{GGUF_SUFFIX}"
        raise ModelNameError(text, reason, decodes=True)
    if text.endswith(GGUF_SUFFIX) and not path.exists():
        raise ModelNameError(text, "no such file", decodes=True)
    return _parse_model(text, decodes=True)


def parse_sidecar(text: str) -> FileRef | FolderRef | RepoRef:
    """Read a sidecar: a file, a folder holding `mtp.safetensors`, an assistant's folder, or `OWNER/NAME[@REVISION]`.

    Raises `FileError` for a folder with neither that file nor a configuration, `OptionError` for anything else that is
    none of the four.
    """
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        file = Path(path) / SIDECAR_FILE
        if file.is_file():
            return FileRef(file)
        if (Path(path) / "config.json").is_file():
            return FolderRef(Path(path))
        raise FileError(path, f"holds no {SIDECAR_FILE}")
    if os.path.exists(path):
        return FileRef(Path(path))
    if _looks_like_a_path(text) or text.endswith(".safetensors"):
        raise OptionError("--sidecar", text, "no such file or folder")
    ref = _parse_repo(text)
    if isinstance(ref, RepoRef):
        return ref
    raise OptionError("--sidecar", text, ref)


def _parse_model(text: str, *, decodes: bool) -> DemoRef | FolderRef | RepoRef:
    if text == DEMO:
        return DemoRef()
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        return FolderRef(Path(path))
    if os.path.exists(path):
        raise ModelNameError(text, "is a file; a model is a folder with config.json", decodes=decodes)
    ref = _parse_repo(text)
    if isinstance(ref, RepoRef):
        return ref
    raise ModelNameError(text, _why_not_a_model(text, decodes=decodes) or ref, decodes=decodes)


def _parse_repo(text: str) -> RepoRef | str:
    """The repository, or why `text` is none."""
    repo, at, revision = text.partition("@")
    if _ADDRESS.match(text):
        return "is an address; a repository is written OWNER/NAME[@REVISION]"
    if _looks_like_a_path(text) or not _REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        return "not a repository, which is written OWNER/NAME[@REVISION]"
    if len(repo) > _REPO_MAX_LENGTH:
        return f"longer than the {_REPO_MAX_LENGTH} characters a repository name may have"
    if at and not revision:
        return "has no revision after the @"
    return RepoRef(repo, revision or DEFAULT_REVISION)


def _looks_like_a_path(text: str) -> bool:
    # Revisions may hold slashes (refs/pr/1), so only what stands before the @ counts.
    if _ADDRESS.match(text):
        return False
    return text.startswith((".", "/", "~")) or text.endswith("/") or text.partition("@")[0].count("/") > 1


def _why_not_a_model(text: str, *, decodes: bool) -> str:
    """A better reason than "no repository", where the text gives one; else empty."""
    if not text:
        return "the name is empty"
    if _looks_like_a_path(text):
        return "no such folder"
    if "/" in text:
        return ""
    try:
        folders = sorted(entry.name for entry in os.scandir() if entry.is_dir())
    except OSError:  # a folder one may not list offers no hint
        folders = []
    # what does not decode has no use for the demo, and is not to offer it
    hint = near_miss(text, [DEMO, *folders] if decodes else folders)
    neither = f"neither {DEMO}, nor" if decodes else "neither"
    return f"{neither} a folder here, nor a repository, which is written OWNER/NAME{hint}"
