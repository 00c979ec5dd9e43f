"""Every error a user can cause or meet, as one tree.

Each carries its facts as fields; `str()` is one sentence for a person. What to do next is said by the program that
catches it (`cli/errors.py`), once per type. Our own broken invariants are `assert`s, not these.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path


class SkulkError(Exception):
    """Root of the tree."""


class OptionError(SkulkError):
    """An option's value cannot be used."""

    def __init__(self, option: str, value: object, reason: str) -> None:
        self.option, self.value, self.reason = option, value, reason
        super().__init__(f"{option} {value}".rstrip() + f": {reason}")


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


class OtherManifest(FormatError):
    """A manifest of ours, of another kind of folder than the one that was asked for."""


class OtherSidecar(SkulkError):
    """A bench receipt was measured with another sidecar; digests in hexadecimal digits, `measured` empty for none."""

    def __init__(self, source: str, measured: str, wanted: str) -> None:
        self.source, self.measured, self.wanted = source, measured, wanted
        of = f"the sidecar with sha256 {measured[:16]}…" if measured else "a head that is no sidecar file"
        super().__init__(f"the receipt is of {of}; this one, of {source}, has {wanted[:16]}…")


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


class AssistantMissing(SkulkError):
    """The draft model `repo` that the catalog names for `model` cannot be had; `command` fetches it by hand."""

    def __init__(self, model: str, repo: str, revision: str | None, error: SkulkError) -> None:
        self.model, self.repo, self.error = model, repo, error
        self.command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
        super().__init__(f"{model} drafts with {repo}, which cannot be had: {error}")


class SidecarError(SkulkError):
    """A sidecar does not fit the model: wrong shape, missing or surplus tensor, unknown layout."""

    def __init__(self, path: Path | str, reason: str, tensors: Sequence[str] = ()) -> None:
        self.path, self.reason, self.tensors = Path(path), reason, tuple(tensors)
        super().__init__(f"{path}: {reason}")


class ConventionsUnknown(SidecarError):
    """A head of which nobody says how it is wired, and which could not be measured."""


class HeadDoesNotFit(SidecarError):
    """However it is wired, the head drafts no better than chance. `best` and `chance` are shares of right drafts."""

    def __init__(self, path: Path | str, best: float, chance: float, num_tokens: int) -> None:
        self.best, self.chance, self.num_tokens = best, chance, num_tokens
        super().__init__(
            path,
            f"no candidate is clearly better than chance (best {best:.1%} of first drafts right, chance {chance:.1%}, "
            f"on {num_tokens} tokens that the model wrote): the head is dead, or belongs to another model",
        )


class OutOfMemory(SkulkError):
    """What was asked for needs more memory than the device has or gave."""


class ExtractError(SkulkError):
    """A head cannot be taken from the checkpoint `source`."""

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source}: {reason}")


class NothingToExtract(ExtractError):
    """The model was released without a head of its own. `assistant` is the repository of its draft model, if known."""

    def __init__(self, source: str, reason: str, assistant: str = "") -> None:
        self.assistant = assistant
        super().__init__(source, reason)


class StrippedCheckpoint(ExtractError):
    """The configuration promises a head that the files do not have. `originals` are its base models, nearest first."""

    def __init__(self, source: str, reason: str, originals: Sequence[str]) -> None:
        self.originals = tuple(originals)
        super().__init__(source, reason)


class UnknownHead(ExtractError):
    """The checkpoint has a head in a layout that is not known, or not known whole."""

    def __init__(self, source: str, reason: str, tensors: Sequence[str]) -> None:
        self.tensors = tuple(tensors)
        super().__init__(source, reason)


class UnsupportedTensor(ExtractError):
    """A tensor is stored in a way that nothing here can turn into BF16."""

    def __init__(self, source: str, tensor: str, dtype: str, reason: str) -> None:
        self.tensor, self.dtype = tensor, dtype
        super().__init__(source, f"tensor {tensor} ({dtype}): {reason}")


class LicenceUnknown(ExtractError):
    """The source's card states no licence."""


class SourceChanged(HubError):
    """A file is not what it was when the work began."""

    def __init__(self, repo: str, file: str) -> None:
        self.file = file
        super().__init__(repo, f"{file} changed while it was being read")


class NotEnoughSpace(SkulkError):
    """The disk under `path` has `free_nbytes`; the work needs `needed_nbytes`."""

    def __init__(self, path: Path | str, needed_nbytes: int, free_nbytes: int) -> None:
        self.path, self.needed_nbytes, self.free_nbytes = Path(path), needed_nbytes, free_nbytes
        super().__init__(f"{path}: {needed_nbytes / 1e9:,.2f} GB needed, {free_nbytes / 1e9:,.2f} GB free")


class MissingPackage(SkulkError):
    """A Python package that only this work needs is not installed. `install` is the command that adds it."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        self.package, self.install = package, install
        super().__init__(f"{purpose} needs {package}, which is not installed")


class LoginError(HubError):
    """There is no login, or the Hub refused it: its token is wrong or has expired."""


class PermissionDenied(HubError):
    """The login may not do what is needed. `permission` says what that is, for a person."""

    def __init__(self, repo: str, permission: str, reason: str) -> None:
        self.permission = permission
        super().__init__(repo, f"{reason}; needed: {permission}")


class HubBusy(HubError):
    """The Hub, or the way to it, stayed out of order through every retry. Nothing is known of what was asked."""


class PublishConflict(HubError):
    """What is in the repository already is not what would be published, or it changed meanwhile."""


class NameTaken(PublishConflict):
    """The repository holds something that was made from another source."""


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


class ProgramError(SkulkError):
    """An external program is needed and did not do its work."""

    def __init__(self, program: str, reason: str) -> None:
        self.program, self.reason = program, reason
        super().__init__(f"{program}: {reason}")


class ProgramMissing(ProgramError):
    """An external program is needed and not installed."""


class VindexError(SkulkError):
    """A folder is not the vindex that its manifest describes. `files` names each file, after what is wrong with it."""

    def __init__(self, vindex: Path | str, reason: str, files: Sequence[str] = ()) -> None:
        self.vindex, self.reason, self.files = str(vindex), reason, tuple(files)
        super().__init__("; ".join([f"{vindex}: {reason}", *files]))


class UnsupportedQuantization(FileError):
    """A GGUF file holds tensors in kinds that cannot be read. `kinds` names one tensor of each, by kind."""

    def __init__(self, path: Path | str, kinds: Mapping[str, str], readable: Sequence[str]) -> None:
        self.kinds, self.readable = dict(kinds), tuple(readable)
        found = ", ".join(f"{kind} (such as {tensor})" for kind, tensor in kinds.items())
        super().__init__(path, f"holds tensors in {found}; only {', '.join(readable)} can be read")


class UnsupportedArchitecture(UnsupportedModel):
    """A GGUF file holds a model of an architecture that is not served."""

    def __init__(self, path: Path | str, architecture: str, supported: Sequence[str]) -> None:
        super().__init__(architecture, supported)
        self.path = Path(path)
        self.args = (f"{path}: GGUF architecture {architecture!r} is not supported",)


class ClusterError(SkulkError):
    """Something about several hosts. `host` is the one at fault, empty where none is."""

    def __init__(self, host: str, reason: str) -> None:
        self.host, self.reason = host, reason
        super().__init__(f"{host}: {reason}" if host else reason)


class HostMismatch(ClusterError):
    """A host is not what the others are: `what` differs, `theirs` against `ours`."""

    def __init__(self, host: str, what: str, theirs: str, ours: str, of: str) -> None:
        self.what, self.theirs, self.ours = what, theirs, ours
        super().__init__(host, f"{what} is {theirs}, on {of} it is {ours}")


class WorkerFailed(ClusterError):
    """A worker ended, said that it cannot work, or fell silent.

    `said` is the last it wrote, `error` the name of the type of the error it told of; each empty if there is none.
    """

    def __init__(self, host: str, reason: str, said: str = "", error: str = "") -> None:
        self.said, self.error = said, error
        super().__init__(host, reason + (f"; it wrote: {said}" if said else ""))


class RingError(ClusterError):
    """The ranks of a ring do not agree, or one of them was lost."""

    def __init__(self, reason: str) -> None:
        super().__init__("", reason)


class ClusterLost(ClusterError):
    """The hosts failed too often, or none is left. `failures` tells of each failure, in order."""

    def __init__(self, reason: str, failures: Sequence[str]) -> None:
        self.failures = tuple(failures)
        super().__init__("", "; ".join([reason, *failures]))


class CertificateError(SkulkError):
    """An answer differs from plain decoding by more than rounding explains: a fault of the program or the machine."""

    def __init__(self, position: int, num_divergences: int, bound: float) -> None:
        self.position, self.num_divergences, self.bound = position, num_divergences, bound
        super().__init__(
            f"{num_divergences} tokens differ from plain decoding, the first at {position}, by more than {bound:.2g}"
        )


class PeerError(ClusterError):
    """Another host, or a process of ours there, cannot be used. `host` is its name on the command line."""


class SshFailed(PeerError):
    """Ssh did not get us there. `login` is what follows `ssh` on a command line that tries it by hand."""

    def __init__(self, host: str, reason: str, login: str = "") -> None:
        self.login = login or host
        super().__init__(host, reason)


class PeerUnreachable(SshFailed):
    """No connection by ssh: no such name, no route, nobody listens, no answer in time."""


class HostKeyRefused(SshFailed):
    """Ssh does not know the host's key, or knows another one."""


class LoginRefused(SshFailed):
    """The host lets nobody in with the keys that ssh offers."""


class SkulkMissing(PeerError):
    """The command that starts `skulk` on the host is not there, cannot be run, or is another program."""

    def __init__(self, host: str, command: str, reason: str) -> None:
        self.command = command
        super().__init__(host, reason)


class DuplicateHost(PeerError):
    """Two ranks were asked for on one machine under two names. `other` is the name it was given first."""

    def __init__(self, host: str, other: str) -> None:
        self.other = other
        super().__init__(host, f"is the same machine as {other}")


class LinkError(PeerError):
    """No address of the host can be used for the ring's traffic."""


class PublicLink(LinkError):
    """The only usable address is a public one."""

    def __init__(self, host: str, address: str) -> None:
        self.address = address
        super().__init__(
            host, f"{address} is a public address, and the ring's traffic knows no login and no encryption"
        )


class SplitError(SkulkError):
    """The layers cannot be divided among the hosts as asked."""


class PlanDoesNotFit(SkulkError):
    """Some host cannot hold its part. Each of `rows` is (host, bytes needed, bytes available, bytes short by)."""

    def __init__(self, rows: Sequence[tuple[str, int, int, int]], reason: str = "the model does not fit") -> None:
        self.rows, self.reason = tuple(rows), reason
        table = "; ".join(
            f"{host} needs {needed / 1e9:,.2f} GB, has {available / 1e9:,.2f} GB"
            + (f", short by {short / 1e9:,.2f} GB" if short else "")
            for host, needed, available, short in rows
        )
        super().__init__(f"{reason}: {table}")
