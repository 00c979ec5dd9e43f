"""Typed error → what to do next and the exit code; the one place where a program of ours catches errors."""

import functools
import os
import sys
from collections.abc import Callable
from string import Formatter
from typing import ParamSpec

import typer

from cli.program import EXIT_CLOSED_PIPE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, abandon
from cli.render import say_error, size
from skulk_core import errors
from skulk_core.runtime.memory_limit import is_out_of_memory

P = ParamSpec("P")
FULL_TIP = "A smaller --context or --max-tokens, a shorter prompt, or more hosts (--peers) leave more room."

# The most particular type that fits is used: tip (formatted with the error as `e`), exit code.
_TABLE: dict[type[errors.SkulkError], tuple[str, int]] = {
    errors.SkulkError: ("", EXIT_FAILED),
    errors.OptionError: ("The command's --help lists its options and their values.", EXIT_USAGE),
    errors.PromptError: ("Give the prompt as an argument, or pipe UTF-8 text in with `-`.", EXIT_USAGE),
    errors.ContextError: (
        "Shorten the prompt, lower --max-tokens, or raise --context if the model allows it.",
        EXIT_USAGE,
    ),
    errors.BackendError: (
        "`skulk doctor` shows what is installed and what is missing; float32 works everywhere.",
        EXIT_FAILED,
    ),
    errors.ModelNameError: (
        "It is a folder or a Hub repository OWNER/NAME[@REVISION]{also}.",
        EXIT_USAGE,
    ),
    errors.HubError: ("Check the name on the Hub, and HF_ENDPOINT if it is set.", EXIT_FAILED),
    errors.HubUnreachable: ("Connect to the network once, or give a folder that holds the files.", EXIT_FAILED),
    errors.RepoNotFound: ("Check the spelling; for a private or gated repository run `hf auth login`.", EXIT_FAILED),
    errors.RevisionNotFound: ("Use a branch, tag or commit that the repository has.", EXIT_FAILED),
    errors.FileError: ("Check the path, or download the file again.", EXIT_FAILED),
    errors.UnsupportedQuantization: (
        "Take the file in one of these (Q8_0 loses least), or the original model: mlx_lm.convert --hf-path OWNER/NAME "
        "-q makes a quantised folder of it.",
        EXIT_FAILED,
    ),
    errors.FormatError: ("Correct the file at the place named, or remove it.", EXIT_FAILED),
    errors.OtherManifest: (
        "`swp verify`, `card` and `publish` take sidecars; for vindexes there are `swp vindex verify` and `publish`.",
        EXIT_FAILED,
    ),
    errors.OtherSidecar: ("Measure this one: skulk bench MODEL --sidecar DIR --out FOLDER.", EXIT_FAILED),
    errors.WorkingFolderGone: ("It was deleted, perhaps: `cd` to a folder that exists.", EXIT_FAILED),
    errors.OutputError: ("Free some space, or write the output somewhere else.", EXIT_FAILED),
    errors.UnsupportedModel: ("Supported types: {supported}.", EXIT_FAILED),
    errors.NotATarget: ("Draft with it: skulk run MODEL --sidecar {model}.", EXIT_FAILED),
    errors.UnknownToken: (
        "Its tokenizer files (tokenizer.json, tokenizer_config.json) belong to another model: fetch the model again.",
        EXIT_FAILED,
    ),
    errors.NoDraftHead: (
        "Give one with --sidecar PATH|REPO, or decode without speculation: --draft-depth 0 or --allow-plain.",
        EXIT_FAILED,
    ),
    errors.AssistantMissing: (
        "Fetch it with `{command}` (a gated one after `hf auth login`), give another with --sidecar FOLDER|REPO, or "
        "decode without one: `skulk run` with --draft-depth 0 or --allow-plain.",
        EXIT_FAILED,
    ),
    errors.SidecarError: (
        "Use the sidecar of this model's base model, or decode without one: --draft-depth 0 or --allow-plain.",
        EXIT_FAILED,
    ),
    errors.HeadDoesNotFit: (
        "`skulk doctor MODEL --sidecar S` shows what was measured. Use the sidecar of this model's base model, or "
        "decode without one: --draft-depth 0 or --allow-plain.",
        EXIT_FAILED,
    ),
    errors.ConventionsUnknown: ("Say how the head is wired: --convention {conventions}.", EXIT_USAGE),
    errors.ExtractError: ("`swp inspect` shows what the checkpoint holds.", EXIT_FAILED),
    errors.NothingToExtract: ("", EXIT_FAILED),
    errors.DraftModelItself: ("Draft with it: skulk run MODEL --sidecar {source}.", EXIT_FAILED),
    errors.StrippedCheckpoint: ("", EXIT_FAILED),
    errors.LicenceUnknown: (
        "Look the licence up; if the head may be passed on nevertheless, say --license-unknown.",
        EXIT_USAGE,
    ),
    errors.SourceChanged: ("Run the command again.", EXIT_FAILED),
    errors.NotEnoughSpace: (
        "Free some space, choose another --out, or move the cache with HF_HOME.",
        EXIT_FAILED,
    ),
    errors.MissingPackage: ("", EXIT_FAILED),
    errors.CertificateError: (
        "Please report it with the model and the command line; --draft-depth 0 decodes plainly meanwhile.",
        EXIT_FAILED,
    ),
    errors.OutOfMemory: (
        "Use a smaller or more quantised model, a shorter --context, or close other programs.",
        EXIT_FAILED,
    ),
    errors.MemoryFull: (FULL_TIP, EXIT_FAILED),
    errors.LoginError: (
        "Log in with `hf auth login`, or set HF_TOKEN. `swp doctor` shows what the Hub says.",
        EXIT_FAILED,
    ),
    errors.PermissionDenied: (
        "Use a token that has it (huggingface.co/settings/tokens), or another --org. `swp doctor --org ORG` checks.",
        EXIT_FAILED,
    ),
    errors.HubBusy: ("Run the same command again later: what is done already is not done twice.", EXIT_FAILED),
    errors.PublishConflict: (
        "Look at what is there; --force replaces it in a new commit, --name avoids it.",
        EXIT_FAILED,
    ),
    errors.NameTaken: ("Publish under another name: --name NAME.", EXIT_FAILED),
    errors.NotVerified: ("swp verify DIR compares it with its source; then publish it.", EXIT_FAILED),
    errors.DigestMismatch: ("Extract it again; nothing that differs from its manifest is published.", EXIT_FAILED),
    errors.EntryExists: ("--force puts the new entry in its place.", EXIT_FAILED),
    errors.NotInCatalog: (
        "`swp catalog list` shows what there is; `swp catalog find MODEL` tells how a model is looked up.",
        EXIT_FAILED,
    ),
    errors.ProgramError: ("Run it by hand to see more; `swp vindex plan` shows the commands.", EXIT_FAILED),
    errors.EditorError: ("Set VISUAL or EDITOR to an editor that is installed.", EXIT_FAILED),
    errors.UnfinishedCard: (
        "The card is as it was. `skulk card edit {model}` opens what you wrote again; removing the file forgets it.",
        EXIT_FAILED,
    ),
    errors.ProgramMissing: (
        "larql is a program of its own (https://github.com/chrishayuk/larql): install it, or say where it is with "
        "--program PATH.",
        EXIT_FAILED,
    ),
    errors.VindexError: ("Fetch or extract it again; what it should hold is in provenance.json.", EXIT_FAILED),
    errors.ClusterError: ("", EXIT_FAILED),
    errors.HostMismatch: ("Install the same versions, and fetch the same files, on every host.", EXIT_FAILED),
    errors.LinkCut: (
        "Something between them lets nothing through: a firewall, or a network that they do not share. Choose another "
        "link with --link; `skulk peers` lists them.",
        EXIT_FAILED,
    ),
    errors.ClusterLost: (
        "`skulk peers` shows what every host says now; --verbose tells what each is given.",
        EXIT_FAILED,
    ),
    errors.PeerError: ("`skulk peers` shows what every host says; try `ssh` to it by hand.", EXIT_FAILED),
    errors.PeerUnreachable: (
        "Check the name, the network and its sshd: `ssh -T {login} true` must work by itself.",
        EXIT_FAILED,
    ),
    errors.HostKeyRefused: (
        "Log in once by hand (`ssh {login}`), compare the key's fingerprint with the host's, and accept it.",
        EXIT_FAILED,
    ),
    errors.LoginRefused: (
        "`ssh -o BatchMode=yes {login} true` must work without a question: a key the host accepts, in the agent if it "
        "has a passphrase.",
        EXIT_FAILED,
    ),
    errors.SkulkMissing: (
        "Install skulk there, or give the command that starts it as `command:` of this host in hosts.yaml.",
        EXIT_FAILED,
    ),
    errors.DuplicateHost: (
        "List each machine once; this one is a host too unless --peers has local:0. local:N is N processes here.",
        EXIT_USAGE,
    ),
    errors.LinkError: (
        "Name the address, interface or network with --link, or `link:` in hosts.yaml. `skulk peers` lists them.",
        EXIT_FAILED,
    ),
    errors.PublicLink: (
        "Use a private network or a tunnel; --allow-public-link takes it nevertheless.",
        EXIT_FAILED,
    ),
    errors.RdmaMissing: (
        "In hosts.yaml give {host} `rdma: {{{neighbour}: DEVICE}}`. An address needs a name there first; this machine "
        "is `local`, an entry that has `rdma` alone. --backend ring needs none of it.",
        EXIT_FAILED,
    ),
    errors.SplitError: (
        "--split has a number of layers for each rank in turn, this host's last, as 20,12.",
        EXIT_USAGE,
    ),
    errors.TooManyHosts: ("Name fewer hosts in --peers; this host is one of them unless it has local:0.", EXIT_USAGE),
    errors.ShareError: (
        "--shard pipeline divides any model by its layers instead, among unlike hosts too.",
        EXIT_USAGE,
    ),
    errors.PlanDoesNotFit: (
        "Add a host, take a smaller or more quantised model or a shorter --context, or free memory there.",
        EXIT_FAILED,
    ),
}


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors end in one message, one tip and an exit code, never in a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            _require_working_folder()
            command(*args, **kwargs)
        except errors.SkulkError as error:
            if isinstance(error, errors.OutputError):
                abandon(sys.stdout)
            tip, code = advice(error)
            if isinstance(error, errors.PlanDoesNotFit):
                say_error(f"{error.reason}:", tip, _table_of(error))
            else:
                say_error(str(error), tip)
            raise typer.Exit(code) from error
        except KeyboardInterrupt as interrupt:
            say_error("interrupted", "")
            raise typer.Exit(EXIT_INTERRUPTED) from interrupt
        except BrokenPipeError as closed:
            abandon(sys.stdout)
            raise typer.Exit(EXIT_CLOSED_PIPE) from closed
        except RuntimeError as error:
            ours = from_mlx(error)
            if ours is None:
                raise
            say_error(str(ours), advice(ours)[0])
            raise typer.Exit(EXIT_FAILED) from error

    return run


def _require_working_folder() -> None:
    """Raise `WorkingFolderGone` where relative names mean nothing: transformers cannot even be imported there."""
    try:
        os.getcwd()
    except OSError as error:
        raise errors.WorkingFolderGone(error.strerror or str(error)) from error


def advice(error: errors.SkulkError) -> tuple[str, int]:
    """What to do next, and the exit code."""
    tip, code = next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)
    if isinstance(error, errors.UnsupportedModel) and not isinstance(error, errors.NotATarget):
        tip = tip.format(supported=", ".join(error.supported))
    if isinstance(error, errors.ModelNameError):
        tip = tip.format(also=", `demo` or a GGUF file" if error.decodes else "")
    if isinstance(error, errors.ConventionsUnknown):
        from skulk_core.types import CONVENTION_NAMES

        tip = tip.format(conventions=" --convention ".join(f"{name}=…" for name in CONVENTION_NAMES))
    match error:
        case errors.WorkerFailed() if issubclass(
            said := getattr(errors, error.error, errors.ClusterError), errors.SkulkError
        ):
            # as if it had been met here, unless the tip needs more of the error than was told
            tip, code = next(_TABLE[kind] for kind in said.__mro__ if kind in _TABLE)
            needed = {name for _, name, _, _ in Formatter().parse(tip) if name is not None}
            tip = tip.format(**error.fields) if needed <= error.fields.keys() else ""
        case errors.DraftModelItself():
            tip = tip.format(source=error.source)
        case errors.NotATarget():
            tip = tip.format(model=error.model)
        case errors.NothingToExtract():
            tip = f"Draft with {error.assistant} instead." if error.assistant else "Decode without speculation."
        case errors.StrippedCheckpoint():
            original = " or ".join(error.originals)
            tip = f"Extract from the original: {original}." if original else "Extract from the model it was made from."
        case errors.MissingPackage():
            tip = error.install
        case errors.AssistantMissing():
            tip = tip.format(command=error.command)
        case errors.UnfinishedCard():
            tip = tip.format(model=error.model)
        case errors.RdmaMissing():
            tip = tip.format(host=error.host, neighbour=error.neighbour)
        case errors.SshFailed():
            tip = tip.format(login=error.login)
    return tip, code


def _table_of(error: errors.PlanDoesNotFit) -> list[tuple[str, ...]]:
    lines = [(host, size(needed), size(has), size(short) if short else "") for host, needed, has, short in error.rows]
    return [("host", "needed", "available", "short by"), *lines]


def from_mlx(error: RuntimeError) -> errors.SkulkError | None:
    """An error of MLX, which begins with the operation in brackets, as ours; None for any other."""
    text = str(error)
    if is_out_of_memory(error):
        return errors.OutOfMemory(text)
    return errors.BackendError(f"MLX cannot compute this here: {text}") if text.startswith("[") else None
