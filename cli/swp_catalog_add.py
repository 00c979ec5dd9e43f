"""`swp catalog add`: an entry from the command line into a person's own catalog."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.errors import guarded
from cli.render import say, visible
from cli.swp_catalog import Kind, entry_as_json, print_json
from skulk_core.errors import OptionError
from skulk_core.types import CONVENTION_NAMES

if TYPE_CHECKING:
    from skulk_core.catalog import Entry, Fingerprint


@guarded
def add_command(
    base: Annotated[str, typer.Argument(help="The model that it was made for: OWNER/NAME.")],
    repo: Annotated[str, typer.Argument(help="The repository it is in: OWNER/NAME.")],
    licence: Annotated[
        str, typer.Option(metavar="ID", help="Its licence, such as apache-2.0. Has no default: it must be given.")
    ],
    kind: Annotated[Kind, typer.Option(metavar="KIND", help="sidecar, assistant or vindex.")] = "sidecar",
    layout: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The family of a sidecar or assistant, such as qwen_mtp. Default: none."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="The commit of REPO to take. Default: its newest.")
    ] = None,
    source_sha: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="The commit of BASE it was made from. Default: not known.")
    ] = None,
    convention: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"How the head is wired, once for each of {', '.join(CONVENTION_NAMES)}. Default: not said.",
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=0, help="Tokens to draft in a round. Default: nobody has measured.")
    ] = None,
    hosts_depth: Annotated[
        list[str] | None,
        typer.Option(metavar="N=DEPTH", help="From N hosts on, another depth; more than once. Default: none."),
    ] = None,
    fingerprint_of: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Know kin of the base by the config.json of this folder or repository. Default: no."
        ),
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="How a vindex is quantised, such as q4k. Default: not said.")
    ] = None,
    slice_name: Annotated[
        str | None,
        typer.Option("--slice", help="The slice that a vindex is, such as expert-server. Default: the whole."),
    ] = None,
    program: Annotated[
        str | None, typer.Option(help="Name and version of the program that made a vindex. Default: not said.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an entry of the same kind and base.")] = False,
    json_output: options.Json = False,
) -> None:
    """Write an entry into your own catalog, which wins over the one that comes with the program.

    Conventions are given all together, or not at all: then the layout's own, or a probe, decide.
    """
    from skulk_core.catalog import add_entry, user_catalog

    heads = {"--layout": layout, "--convention": convention, "--depth": depth, "--hosts-depth": hosts_depth}
    vindexes = {"--quant": quant, "--slice": slice_name, "--program": program}
    for option, value in (heads if kind == "vindex" else vindexes).items():
        if value is not None:
            raise OptionError(option, value, f"a {kind} has none")
    common: dict[str, Any] = {
        "base": _repo("BASE", base),
        "repo": _repo("REPO", repo),
        "licence": _text("--licence", licence),
        "revision": _commit("--revision", revision),
        "source_sha": _commit("--source-sha", source_sha),
        "fingerprint": None if fingerprint_of is None else _fingerprint(fingerprint_of),
    }
    if kind == "vindex":
        entry = _vindex(common, quant, slice_name, program)
    else:
        entry = _head(kind, common, layout, convention, depth, hosts_depth)
    path = user_catalog()
    change = add_entry(path, entry, replace=force)
    if json_output:
        print_json({"change": change, "path": str(path), "entry": entry_as_json(entry)})
    else:
        say(f"{change}: {entry.kind} {entry.repo} of {entry.base}, in {path}")


def _vindex(common: dict[str, Any], quant: str | None, slice_name: str | None, program: str | None) -> "Entry":
    from skulk_core.catalog import VindexEntry
    from skulk_core.formats.catalog import WHOLE

    return VindexEntry(
        **common,
        quant=None if quant is None else _text("--quant", quant),
        slice=WHOLE if slice_name is None else _text("--slice", slice_name),
        program=None if program is None else _text("--program", program),
    )


def _head(
    kind: str,
    common: dict[str, Any],
    layout: str | None,
    convention: list[str] | None,
    depth: int | None,
    hosts_depth: list[str] | None,
) -> "Entry":
    from skulk_core.catalog import AssistantEntry, SidecarEntry
    from skulk_core.types import Conventions

    if layout is None:
        raise OptionError("--layout", "", f"must be given for a {kind}")
    wired = options.read_conventions(convention)
    if wired and (missing := [name for name in CONVENTION_NAMES if name not in wired]):
        raise OptionError("--convention", " ".join(convention or ()), f"{', '.join(missing)} must be given too")
    return (SidecarEntry if kind == "sidecar" else AssistantEntry)(
        **common,
        layout=_text("--layout", layout),
        conventions=Conventions(**wired) if wired else None,  # type: ignore[arg-type]
        default_depth=depth,
        depth_by_hosts=_depth_by_hosts(hosts_depth or []),
    )


def _depth_by_hosts(pairs: list[str]) -> tuple[tuple[int, int], ...]:
    depths: dict[int, int] = {}
    for pair in pairs:
        hosts, equals, depth = pair.partition("=")
        if not (equals and hosts.isdecimal() and depth.isdecimal() and int(hosts) > 0):
            raise OptionError("--hosts-depth", pair, "must be N=DEPTH, two whole numbers, N from 1")
        depths[int(hosts)] = int(depth)
    return tuple(sorted(depths.items()))


def _fingerprint(model: str) -> "Fingerprint":
    from skulk_core.catalog import Subject
    from skulk_core.catalog.fingerprint import fingerprint_of
    from skulk_core.hub.model_config import NoConfig, read_model_config

    config = read_model_config(Subject.parse(model).config)
    found = config.reason if isinstance(config, NoConfig) else fingerprint_of(config)
    if isinstance(found, str):
        raise OptionError("--fingerprint-of", model, found)
    return found


def _repo(option: str, value: str) -> str:
    from skulk_core.formats.catalog import is_repo

    if not is_repo(value):
        raise OptionError(option, value, "a repository is written OWNER/NAME")
    return value


def _commit(option: str, value: str | None) -> str | None:
    from skulk_core.formats.catalog import is_commit

    if value is not None and not is_commit(value):
        raise OptionError(option, value, "a commit is 40 hexadecimal digits")
    return value


def _text(option: str, value: str) -> str:
    if not value.strip() or not options.is_utf8(value) or visible(value) != value:
        raise OptionError(option, repr(value), "must be a line of text")
    return value
