"""`swp vindex`: indexes of whole models, made by the external program larql; planned, made, checked, published here."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.errors import guarded
from cli.program import EXIT_FAILED
from cli.render import Reporter, out, say, visible
from cli.swp_options import Collection, DryRun, LicenceUnknown, Org, Private
from skulk_core.errors import OptionError, ProgramMissing

if TYPE_CHECKING:
    from threading import Event

    from swp.vindex import Plan
    from swp.vindex_check import Verification

JSON_SCHEMA = 1

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Source = Annotated[
    str,
    typer.Argument(
        metavar="REPO@SHA|DIR",
        help="The model: a Hub repository at a commit; a branch or tag, or no revision, is the commit it is now. Or "
        "the folder of a whole vindex made here, to cut a slice from.",
    ),
]
Quant = Annotated[
    str | None, typer.Option(metavar="NAME", help="How larql is to quantise. Default: q4k, or as DIR is quantised.")
]
Slice = Annotated[
    str,
    typer.Option(
        "--slice",
        metavar="PRESET",
        help="whole, or a preset of larql's to cut the index by: expert-server, client, attn, embed, server, browse, "
        "router.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where to write. Default: the repository's name with quantisation and -vindex, here.",
    ),
]
Program = Annotated[
    Path | None, typer.Option("--program", metavar="PATH", help="The larql to run. Default: the one on PATH.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    vindex = typer.Typer(
        no_args_is_help=True,
        help="Make, check and publish vindexes, with the external program larql. Tested with a stand-in for larql "
        "only: unproven against the real one.",
    )
    vindex.command("plan")(plan_command)
    vindex.command("extract")(extract_command)
    vindex.command("verify")(verify_command)
    vindex.command("publish")(publish_command)
    app.add_typer(vindex, name="vindex")


@guarded
def plan_command(
    source: Source,
    quant: Quant = None,
    slice_name: Slice = "whole",
    target: Out = None,
    program: Program = None,
    license_unknown: LicenceUnknown = False,
    json_output: options.Json = False,
) -> None:
    """Show the exact steps that `swp vindex extract` would take, with the commit it would take; changes nothing."""
    from threading import Event

    from swp.vindex_program import find_program, identify

    plan = _plan(source, quant, slice_name, target, license_unknown, Event(), say)
    try:
        found = str(identify(find_program(program)))
    except ProgramMissing as error:
        found, missing = "", str(error)
    if json_output:
        out(json.dumps({"schema": JSON_SCHEMA, **plan.to_dict(), "program": found or None}) + "\n")
        return
    _show_plan(plan, found or f"not found here: {missing}")


@guarded
def extract_command(
    source: Source,
    quant: Quant = None,
    slice_name: Slice = "whole",
    target: Out = None,
    program: Program = None,
    license_unknown: LicenceUnknown = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a vindex of a model at one commit, with manifest, card and licences.

    Runs larql, which must be installed; what it writes goes to stderr. The folder is there when it is complete, or not
    at all. Its manifest has larql's version and the digest of every file.
    """
    from threading import Event

    from skulk_core.runtime.device import versions
    from swp.vindex import Shown, extract
    from swp.vindex_program import find_program, identify

    executable = find_program(program)
    identity = identify(executable)
    reporter, cancel = Reporter(quiet=quiet, verbose=False), Event()
    try:
        plan = _plan(source, quant, slice_name, target, license_unknown, cancel, reporter.note)
        reporter.note(f"{plan.source}, with {identity} ({executable}); unproven against the real larql")
        tool = f"swp {versions()['skulk-mtp'] or 'unknown'}"
        manifest = extract(plan, executable, identity, tool, Shown(reporter.working, reporter.bytes, reporter.note))
    finally:
        cancel.set()
    nbytes = sum(file.nbytes for file in manifest.files)
    if json_output:
        answer = {"out": str(plan.target), "source": manifest.source, "program": str(manifest.program)}
        answer |= {"quant": manifest.quant, "slice": manifest.slice}
        out(json.dumps({"schema": JSON_SCHEMA, **answer, "num_files": len(manifest.files), "nbytes": nbytes}) + "\n")
    else:
        out(f"{visible(str(plan.target))}: {len(manifest.files)} files, {nbytes / 1e6:,.1f} MB\n")


@guarded
def verify_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="ORG/NAME@SHA|DIR", help="A published vindex, or a folder made by `swp vindex extract`."
        ),
    ],
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read every file of a vindex and compare it with the manifest; name what changed, is missing or was added.

    Of a published one every byte is downloaded, and none kept. Exits with 1 if anything differs.
    """
    from threading import Event

    from skulk_core.errors import ModelNameError
    from skulk_core.hub.refs import DemoRef, FolderRef, parse_model
    from swp.vindex_check import verify_vindex

    ref = parse_model(target)
    if isinstance(ref, DemoRef):
        raise ModelNameError(target, "is a model, not a vindex")
    reporter, cancel = Reporter(quiet=quiet, verbose=False), Event()
    try:
        with reporter.working():
            reporter.step("reading files")
            where = ref.path if isinstance(ref, FolderRef) else ref
            found = verify_vindex(where, cancel, reporter.bytes, reporter.note)
    finally:
        cancel.set()
    if json_output:
        out(json.dumps({"schema": JSON_SCHEMA, **found.to_dict()}) + "\n")
    else:
        _show_verification(found)
    if not found.ok:
        raise typer.Exit(EXIT_FAILED)


@guarded
def publish_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `swp vindex extract`.")],
    org: Org = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: the model's name in lower case, quantisation, slice and -vindex."),
    ] = None,
    collection: Collection = None,
    private: Private = False,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace other content of the same source, in a new commit.")
    ] = False,
    license_unknown: LicenceUnknown = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Publish a vindex on the Hugging Face Hub: one commit with every file, card, manifest and licences.

    Every file is compared with the manifest before anything is created. Run twice, the second run finds nothing to do.
    """
    from cli.swp_publish import client_bars, report_publish
    from skulk_core.catalog.user import user_catalog
    from skulk_core.formats.vindex import read_vindex
    from swp.hub_write import HubWriter
    from swp.plan import Wishes
    from swp.publish import apply, permitted_repo, prepare
    from swp.vindex import vindex_suffix
    from swp.vindex_card import vindex_publication

    reporter = Reporter(quiet=quiet, verbose=False)
    client_bars(shown=not quiet)
    manifest = read_vindex(folder)
    writer = HubWriter(note=reporter.note)
    repo = permitted_repo(writer, manifest.source_repo, org, name, vindex_suffix(manifest.quant, manifest.slice))
    reporter.note(f"comparing {folder} with its manifest")
    publication = vindex_publication(folder, repo, licence_unknown=license_unknown)
    plan = prepare(writer, publication, repo, Wishes(private, force, collection), user_catalog())
    for note in plan.notes:
        reporter.note(note)
    done = None if dry_run else apply(plan, writer, user_catalog(), reporter.note)
    report_publish(plan, done, json_output)


def _plan(
    source: str,
    quant: str | None,
    slice_name: str,
    target: Path | None,
    license_unknown: bool,
    cancel: "Event",
    on_wait: Callable[[str], None],
) -> "Plan":
    """What is to be done; asks the Hub for the commit. Raises `OptionError`, `ModelNameError` and as `make_plan`."""
    from skulk_core.catalog.subject import parse_ref
    from skulk_core.errors import ModelNameError
    from skulk_core.hub.refs import DemoRef, FolderRef
    from swp.vindex import QUANT, Wish, make_plan, open_source, open_whole

    for option, value in (("--quant", quant), ("--slice", slice_name)):
        # an argument of another program: never one that it could take for an option
        if value is not None and not _WORD.fullmatch(value):
            raise OptionError(option, repr(value), "must be one word of letters, digits, dashes, dots and underscores")
    ref = parse_ref(source)
    match ref:
        case DemoRef():
            raise ModelNameError(source, "is not on the Hub")
        case FolderRef(path):
            opened = open_whole(path, cancel)
        case _:
            opened = open_source(ref, cancel, on_wait)
    default = opened.whole.quant if opened.whole else QUANT
    return make_plan(opened, Wish(quant or default, slice_name, license_unknown), target)


def _show_plan(plan: "Plan", program: str) -> None:
    from swp.vindex import cache_settings

    source, work = plan.source, shlex.quote(str(plan.work))
    out(visible(f"source   {source}") + "\n" + visible(f"program  {program}") + "\n")
    steps = [f"mkdir {work} && cd {work}"]
    if source.whole is None:
        steps.append(f"hf download {source.repo} --revision {source.sha}")
        steps.append(
            f"# link its files in ./hub as the Hub's cache has them, {source.sha} being main: larql sees no other"
        )
        settings = cache_settings(plan.work).items()
        steps.append("export " + " ".join(f"{key}={shlex.quote(value)}" for key, value in settings))
    else:
        steps.append(f"ln -s {shlex.quote(str(source.folder))} whole.vindex")
    steps += [shlex.join(command) for command in plan.commands]
    steps.append("# write the licence files, provenance.json with the digest of every file, README.md")
    steps.append(f"mv made.vindex {shlex.quote(str(plan.target))}")
    for number, step in enumerate(steps, 1):
        out(visible(f"{number:3}. {step}") + "\n")


def _show_verification(found: "Verification") -> None:
    for check in found.checks:
        mark = "same   " if check.ok else "DIFFERS"
        out(visible(f"{mark}  {check.name}: {check.detail}") + "\n")
    failed, total = sum(not check.ok for check in found.checks), len(found.checks)
    result = f"{failed} of {total} files differ" if failed else f"all {total} files are as the manifest says"
    out(visible(f"{found.name}, from {found.manifest.source}: {result}") + "\n")
