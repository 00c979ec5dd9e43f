"""What every error of ours is, and those of options, memory and programs."""

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
    """The prompt and the tokens asked for do not fit the context.

    With ``at_least`` the prompt is so long that it was not encoded, and has as many tokens or more.
    """

    def __init__(
        self, prompt_tokens: int, context_tokens: int, max_tokens: int | None = None, *, at_least: bool = False
    ) -> None:
        self.prompt_tokens, self.context_tokens, self.max_tokens = prompt_tokens, context_tokens, max_tokens
        self.at_least = at_least
        new = "at least 1 new token" if max_tokens is None else f"{max_tokens} new tokens"
        wanted = prompt_tokens + (1 if max_tokens is None else max_tokens)
        super().__init__(
            f"{'at least ' if at_least else ''}{prompt_tokens} prompt tokens + {new} = {wanted}, "
            f"more than a context of {context_tokens} tokens"
        )


class BackendError(SkulkError):
    """No usable MLX build is installed, or it cannot be loaded."""


class ModelNameError(SkulkError):
    """MODEL is nothing that the command takes; ``decodes`` says that `demo` and GGUF files would be, too."""

    def __init__(self, name: str, reason: str, *, decodes: bool = False) -> None:
        self.name, self.reason, self.decodes = name, reason, decodes
        super().__init__(f"{name}: {reason}")


class WorkingFolderGone(SkulkError):
    """The folder that the program was started in does not exist any more, or cannot be entered."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the working directory cannot be used: {reason}")


class OutputError(SkulkError):
    """The answer cannot be written: a full disk, a stream that was closed before the program began."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"stdout cannot be written: {reason}")


class OutOfMemory(SkulkError):
    """What was asked for needs more memory than the device has or gave."""


class MemoryFull(OutOfMemory):
    """A host cannot run the next pass of a text. `host` is empty for this one, or while nobody has said which it is.

    `needed_nbytes` of the pass, where `left_nbytes` are left; both 0 where it was the allocation that failed, in the
    midst of the pass: `in_pass`.
    """

    def __init__(self, needed_nbytes: int = 0, left_nbytes: int = 0, host: str = "") -> None:
        self.needed_nbytes, self.left_nbytes, self.host = needed_nbytes, left_nbytes, host
        self.in_pass = not needed_nbytes
        why = (
            "memory for a pass could not be had"
            if self.in_pass
            else f"what comes next takes {needed_nbytes / 1e6:,.1f} MB, which is "
            f"{(needed_nbytes - left_nbytes) / 1e6:,.2f} MB more than there is"
        )
        super().__init__(f"{host or 'this host'} is full: {why}")

    def on(self, host: str) -> "MemoryFull":
        """The same, of ``host``."""
        return MemoryFull(self.needed_nbytes, self.left_nbytes, host)


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


class ProgramError(SkulkError):
    """An external program is needed and did not do its work."""

    def __init__(self, program: str, reason: str) -> None:
        self.program, self.reason = program, reason
        super().__init__(f"{program}: {reason}")


class EditorError(ProgramError):
    """A person's editor did not do its work."""


class ProgramMissing(ProgramError):
    """An external program is needed and not installed."""


class CertificateError(SkulkError):
    """An answer differs from plain decoding by more than rounding explains: a fault of the program or the machine."""

    def __init__(self, position: int, num_divergences: int, bound: float) -> None:
        self.position, self.num_divergences, self.bound = position, num_divergences, bound
        super().__init__(
            f"{num_divergences} tokens differ from plain decoding, the first at {position}, by more than {bound:.2g}"
        )
