"""Commands of `swp`: card, publish, verify, doctor."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.errors import guarded
from cli.findings import show_report
from cli.program import EXIT_FAILED
from cli.render import Reporter, out, say, visible
from cli.swp_extract import warn_of_nan
from cli.swp_options import Collection, DryRun, LicenceUnknown, Org, Private

if TYPE_CHECKING:
    from swp.hub_write import HubWriter
    from swp.plan import Plan
    from swp.publish import Published, Source
    from swp.verify import Verification

Receipt = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Figures for the card: what `skulk bench --json` printed. Default: none."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("publish")(publish_command)
    app.command("verify")(verify_command)
    app.command("card")(card_command)
    app.command("doctor")(doctor_command)


@guarded
def card_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `swp extract`.")],
    repo: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="The repository to speak of. Default: the folder itself.")
    ] = None,
    receipt: Receipt = None,
    license_unknown: LicenceUnknown = False,
) -> None:
    """Print the model card of an extracted sidecar, made from its manifest.

    It tells what the sidecar is, how to use it, its source commit and licence, and how to make it again.

    For every tensor it says where it was taken from, with digests of both sides.
    """
    from skulk_core.formats.provenance import read_manifest
    from swp.card import render
    from swp.licence import require_licence
    from swp.receipt import quotable_receipt

    figures = quotable_receipt(receipt) if receipt else None
    manifest = read_manifest(folder)
    require_licence(manifest.licence, manifest.source, license_unknown)
    out(render(manifest, repo=repo, receipt=figures))


@guarded
def publish_command(
    target: Annotated[
        str,
        typer.Argument(metavar="DIR|REPO@SHA", help="A folder made by `swp extract`, or what to extract first."),
    ],
    org: Org = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: the source's name in lower case, dots to dashes, then -mtp."),
    ] = None,
    collection: Collection = None,
    private: Private = False,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace other content made from the same source, in a new commit.")
    ] = False,
    receipt: Receipt = None,
    license_unknown: LicenceUnknown = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Publish a sidecar on the Hugging Face Hub: one commit with weights, card, manifest and licence files.

    swp publish ./qwen3-5-4b-mtp --org my-org --dry-run

    The login is that of `hf auth login`, or HF_TOKEN; it must have the right to write to ORG.

    Every file and tensor is compared with the manifest before anything is created on the Hub.

    REPO@SHA is extracted first, into a folder here. To choose a layout or a folder, run `swp extract`, and publish DIR.

    Run twice, the second run finds nothing to do; interrupted, the same command goes on where it was.

    Afterwards your own catalog lists the sidecar, so that `skulk run` finds it.
    """
    from skulk_core.catalog.user import user_catalog
    from swp.hub_write import HubWriter
    from swp.plan import Wishes
    from swp.publish import apply, permitted_repo, prepare, sidecar_publication, source_of
    from swp.receipt import quotable_receipt

    figures = quotable_receipt(receipt) if receipt else None
    reporter = Reporter(quiet=quiet, verbose=False)
    client_bars(shown=not quiet)
    writer = HubWriter(note=reporter.note)
    source = source_of(target)
    repo = permitted_repo(writer, source.repo, org, name)
    folder = source.folder or _extract_first(writer, source, repo, license_unknown, reporter)
    reporter.note(f"comparing {folder} with its manifest")
    publication = sidecar_publication(folder, repo, receipt=figures, licence_unknown=license_unknown)
    plan = prepare(writer, publication, repo, Wishes(private, force, collection), user_catalog())
    for note in plan.notes:
        reporter.note(note)
    done = None if dry_run else apply(plan, writer, user_catalog(), reporter.note)
    report_publish(plan, done, json_output)


@guarded
def verify_command(
    target: Annotated[
        str,
        typer.Argument(metavar="ORG/NAME[@SHA]|DIR", help="A published sidecar, or a folder made by `swp extract`."),
    ],
    jobs: Annotated[int, typer.Option(metavar="N", help="Parts to fetch at the same time.")] = 4,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a sidecar again from its source, and compare: every file, and every tensor by name.

    Fetches from the source commit the byte ranges of the head. Exits with 1 if a single byte differs.

    A folder that was extracted from a local copy can be published once this has found no difference.
    """
    options.at_least("--jobs", jobs, 1)
    from threading import Event

    from skulk_core.catalog import Catalog
    from swp.verify import verify

    reporter, cancel = Reporter(quiet=quiet, verbose=False), Event()
    try:
        with reporter.working():
            found = verify(
                target, Catalog.known(), cancel, num_jobs=jobs, on_progress=reporter.bytes, on_wait=reporter.note
            )
    finally:
        # no thread goes on once the command has ended
        cancel.set()
    if json_output:
        out(json.dumps(found.to_dict()) + "\n")
    else:
        _show_verification(found)
    if not found.ok:
        raise typer.Exit(EXIT_FAILED)


@guarded
def doctor_command(org: Org = None, json_output: options.Json = False) -> None:
    """Tell who is logged in to the Hub, whether that login may publish, and what is missing on this machine.

    The login's token is never shown. Exits with 1 if something that publishing needs is missing.
    """
    from swp.doctor import examine
    from swp.hub_write import HubWriter

    show_report(examine(HubWriter(note=say), org, Path.cwd()), json_output)


def report_publish(plan: "Plan", done: "Published | None", json_output: bool) -> None:
    """The plan of a dry run, or what was done; on stdout."""
    if json_output:
        result: dict[str, Any] = {**plan.to_dict(), "dry_run": done is None, "nothing_to_do": not plan.steps}
        result |= {"url": done.url if done else None, "commit": done.commit if done else None}
        out(json.dumps(result) + "\n")
        return
    if not plan.steps:
        out(f"nothing to do: {plan.repo} holds this already\n")
    elif done is None:
        out(visible(f"{plan.repo}, from {plan.source}:") + "\n")
        for number, step in enumerate(plan.steps, 1):
            out(visible(f"  {number}. {step}") + "\n")
            for item in getattr(step, "add", ()):
                out(visible(f"       {item.name}  {item.nbytes} bytes  sha256:{item.sha256}") + "\n")
            for name in getattr(step, "delete", ()):
                out(visible(f"       {name}  deleted") + "\n")
    else:
        out(f"{done.url}\n")


def client_bars(*, shown: bool) -> None:
    """Let huggingface_hub draw its bars for uploads, on a terminal only."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not shown or not sys.stderr.isatty():
        disable_progress_bars()


def _extract_first(writer: "HubWriter", source: "Source", repo: str, license_unknown: bool, reporter: Reporter) -> Path:
    """Extract what is to be published, unless its name is taken; the folder."""
    from threading import Event

    from skulk_core.catalog import Catalog
    from skulk_core.runtime.device import versions
    from swp.extract import Wish, extract
    from swp.out_folder import default_folder
    from swp.publish import look, refuse_if_taken
    from swp.sources import open_source

    refuse_if_taken(look(writer, repo), source.repo)
    cancel = Event()
    tool = f"swp {versions()['skulk-mtp'] or 'unknown'}"
    try:
        with reporter.working():
            opened = open_source(f"{source.repo}@{source.revision}", None, cancel, reporter.note)
            folder = default_folder(opened.repo)
            wish = Wish(licence_unknown=license_unknown)
            done = extract(opened, folder, wish, Catalog.known(), tool, cancel, reporter.bytes)
    finally:
        cancel.set()
    warn_of_nan(done)
    return folder


def _show_verification(found: "Verification") -> None:
    for check in found.checks:
        mark = "same   " if check.ok else "DIFFERS"
        out(visible(f"{mark}  {check.subject} {check.name}: {check.detail}") + "\n")
    failed = sum(not check.ok for check in found.checks)
    what = f"{found.name}, from {found.source}"
    total = len(found.checks)
    result = f"{failed} of {total} comparisons differ" if failed else f"all {total} comparisons are the same"
    out(visible(f"{what}: {result}") + "\n")
    if found.now_verified:
        out(f"its manifest now says that it was verified: swp publish {visible(found.name)} --org\n")
