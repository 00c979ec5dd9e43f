"""Errors of files and of what is looked up in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from skulk_core.errors.base import SkulkError


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


class UnfinishedCard(FileError):
    """A person's own card of `model` that they edited and that breaks the schema; `path` keeps what they wrote."""

    def __init__(self, path: Path | str, reason: str, model: str) -> None:
        self.model = model
        super().__init__(path, reason)


class OtherManifest(FormatError):
    """A manifest of ours, of another kind of folder than the one that was asked for."""


class OtherSidecar(SkulkError):
    """A bench receipt was measured with another sidecar; digests in hexadecimal digits, `measured` empty for none."""

    def __init__(self, source: str, measured: str, wanted: str) -> None:
        self.source, self.measured, self.wanted = source, measured, wanted
        of = f"the sidecar with sha256 {measured[:16]}…" if measured else "a head that is no sidecar file"
        super().__init__(f"the receipt is of {of}; this one, of {source}, has {wanted[:16]}…")


class NotVerified(FileError):
    """A folder whose bytes were only said to be those of the source."""


class DigestMismatch(FileError):
    """Bytes are not those that a manifest tells of. `tensor` is the tensor they belong to, if it is known."""

    def __init__(self, path: Path | str, reason: str, tensor: str | None = None) -> None:
        self.tensor = tensor
        super().__init__(path, reason if tensor is None else f"tensor {tensor}: {reason}")


class EntryExists(SkulkError):
    """The catalog `path` lists `base` as `kind` already, with other values."""

    def __init__(self, path: Path | str, kind: str, base: str) -> None:
        self.path, self.kind, self.base = Path(path), kind, base
        super().__init__(f"{path} lists another {kind} of {base} already")


class NotInCatalog(SkulkError):
    """No entry of the catalog belongs to the model. `candidates` are bases of which none could be preferred."""

    def __init__(self, model: str, reason: str, candidates: Sequence[str] = ()) -> None:
        self.model, self.reason, self.candidates = model, reason, tuple(candidates)
        super().__init__(f"{model}: {reason}")


class UnsupportedQuantization(FileError):
    """A GGUF file holds tensors in kinds that cannot be read. `kinds` names one tensor of each, by kind."""

    def __init__(self, path: Path | str, kinds: Mapping[str, str], readable: Sequence[str]) -> None:
        self.kinds, self.readable = dict(kinds), tuple(readable)
        found = ", ".join(f"{kind} (such as {tensor})" for kind, tensor in kinds.items())
        super().__init__(path, f"holds tensors in {found}; only {', '.join(readable)} can be read")
