"""Errors of models, heads, sidecars and their extraction."""

from collections.abc import Sequence
from pathlib import Path

from skulk_core.errors.base import SkulkError


class UnsupportedModel(SkulkError):
    """The checkpoint's model type has no adapter."""

    def __init__(self, model_type: str, supported: Sequence[str]) -> None:
        self.model_type, self.supported = model_type, tuple(supported)
        super().__init__(f"model type {model_type!r} is not supported")


class NotATarget(UnsupportedModel):
    """The checkpoint is a draft model for another, given as the model to decode."""

    def __init__(self, model_type: str, supported: Sequence[str], model: Path | str) -> None:
        super().__init__(model_type, supported)
        self.model = str(model)
        self.args = (f"{model}: is a draft model for another model ({model_type}), which does not decode by itself",)


class UnknownToken(SkulkError):
    """The prompt has a token that the model has no embedding of: its tokenizer belongs to another model."""

    def __init__(self, token: int, vocab_size: int) -> None:
        self.token, self.vocab_size = token, vocab_size
        super().__init__(f"the prompt has token {token}, and the model's token ids end at {vocab_size - 1}")


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


class DraftModelItself(NothingToExtract):
    """What was to be extracted from is an assistant: a draft model that is used whole."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "is itself a draft model; it is used whole")


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


class VindexError(SkulkError):
    """A folder is not the vindex that its manifest describes. `files` names each file, after what is wrong with it."""

    def __init__(self, vindex: Path | str, reason: str, files: Sequence[str] = ()) -> None:
        self.vindex, self.reason, self.files = str(vindex), reason, tuple(files)
        super().__init__("; ".join([f"{vindex}: {reason}", *files]))


class UnsupportedArchitecture(UnsupportedModel):
    """A GGUF file holds a model of an architecture that is not served."""

    def __init__(self, path: Path | str, architecture: str, supported: Sequence[str]) -> None:
        super().__init__(architecture, supported)
        self.path = Path(path)
        self.args = (f"{path}: GGUF architecture {architecture!r} is not supported",)
