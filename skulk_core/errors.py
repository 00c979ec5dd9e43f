"""Every error a user can cause or meet, as one tree.

Each carries its facts as fields; `str()` is one sentence for a person. What to do next is said by the program that
catches it (`cli/errors.py`), once per type. Our own broken invariants are `assert`s, not these.
"""

from collections.abc import Sequence
from pathlib import Path


class SkulkError(Exception):
    """Root of the tree."""


class OptionError(SkulkError):
    """An option's value cannot be used."""

    def __init__(self, option: str, value: object, reason: str) -> None:
        self.option, self.value, self.reason = option, value, reason
        super().__init__(f"{option} {value}: {reason}")


class PromptError(SkulkError):
    """The prompt cannot be decoded from: empty, or not text."""


class ContextError(SkulkError):
    """The prompt and the tokens asked for do not fit the context."""

    def __init__(self, prompt_tokens: int, context_tokens: int, max_tokens: int | None = None) -> None:
        self.prompt_tokens, self.context_tokens, self.max_tokens = prompt_tokens, context_tokens, max_tokens
        new = "at least 1 new token" if max_tokens is None else f"{max_tokens} new tokens"
        wanted = prompt_tokens + (1 if max_tokens is None else max_tokens)
        super().__init__(
            f"{prompt_tokens} prompt tokens + {new} = {wanted}, more than a context of {context_tokens} tokens"
        )


class BackendError(SkulkError):
    """No usable MLX build is installed, or it cannot be loaded."""


class ModelNameError(SkulkError):
    """MODEL is neither `demo`, nor a folder that exists, nor OWNER/NAME[@REVISION]."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


class HubError(SkulkError):
    """The Hub did not give what was asked of it."""

    def __init__(self, repo: str, reason: str) -> None:
        self.repo, self.reason = repo, reason
        super().__init__(f"{repo}: {reason}")


class HubUnreachable(HubError):
    """No answer from the Hub, and what was asked is not in the local cache."""


class RepoNotFound(HubError):
    """The repository does not exist, is private, or is gated and the login may not read it."""


class RevisionNotFound(HubError):
    """The repository exists, the revision does not."""

    def __init__(self, repo: str, revision: str) -> None:
        self.revision = revision
        super().__init__(repo, f"no revision {revision}")


class FileError(SkulkError):
    """A file of ours or of a checkpoint is missing, unreadable, truncated, or not what its name says."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = Path(path), reason
        super().__init__(f"{path}: {reason}")


class FormatError(FileError):
    """A file that was read does not follow its schema. `where` names the line and key."""

    def __init__(self, path: Path | str, where: str, reason: str) -> None:
        self.where = where
        super().__init__(path, f"{where}: {reason}")


class OutputError(SkulkError):
    """The answer cannot be written: a full disk, a stream that was closed before the program began."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"stdout cannot be written: {reason}")


class UnsupportedModel(SkulkError):
    """The checkpoint's model type has no adapter."""

    def __init__(self, model_type: str, supported: Sequence[str]) -> None:
        self.model_type, self.supported = model_type, tuple(supported)
        super().__init__(f"model type {model_type!r} is not supported")


class NoDraftHead(SkulkError):
    """Speculation was asked for and the model has no head anywhere we know of."""

    def __init__(self, model: str, looked_in: Sequence[str]) -> None:
        self.model, self.looked_in = model, tuple(looked_in)
        super().__init__(f"{model}: no draft head found (looked in: {', '.join(looked_in)})")


class SidecarError(SkulkError):
    """A sidecar does not fit the model: wrong shape, missing or surplus tensor, unknown layout."""

    def __init__(self, path: Path | str, reason: str, tensors: Sequence[str] = ()) -> None:
        self.path, self.reason, self.tensors = Path(path), reason, tuple(tensors)
        super().__init__(f"{path}: {reason}")


class ConventionsUnknown(SidecarError):
    """A sidecar without metadata, unknown to the catalog, on a trunk whose family has no released convention."""


class OutOfMemory(SkulkError):
    """What was asked for needs more memory than the device has or gave."""
