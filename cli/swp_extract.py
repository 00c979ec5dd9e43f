"""Commands of `swp`: extract, inspect."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.errors import guarded
from cli.options import Json, Quiet, at_least
from cli.render import Reporter, out, say, show, visible

if TYPE_CHECKING:
    from swp.extract import Extracted
    from swp.inspection import Inspection

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="REPO@SHA|PATH",
        help="The original checkpoint: a Hub repository at a commit, or a folder with its files. A branch or tag, or "
        "no revision at all, is the commit it is now.",
    ),
]
SaidSource = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="REPO@SHA",
        help="The repository and commit (40 digits) that the folder PATH is a copy of. Taken on trust until "
        "`swp verify` has compared them.",
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option("--layout", metavar="NAME", help="How the head's tensors are named. Default: found out from them."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("extract")(extract_command)
    app.command("inspect")(inspect_command)


@guarded
def extract_command(
    checkpoint: Checkpoint,
    source: SaidSource = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write. Default: the repository's name with -mtp, here."),
    ] = None,
    layout: LayoutName = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Parts to fetch at the same time.")] = 4,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Leave out copies of the trunk's embedding and LM head, which takes fetching both.",
        ),
    ] = True,
    license_unknown: Annotated[
        bool, typer.Option("--license-unknown", help="Go on although the checkpoint's card states no licence.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take the draft head out of an original checkpoint: sidecar, manifest, card and licences in one folder.

    Only the head's own bytes are fetched. After an interruption, the same command goes on where it was.
    """
    at_least("--jobs", jobs, 1)
    from threading import Event

    from skulk_core.catalog import Catalog
    from skulk_core.runtime.device import versions
    from swp.extract import Wish, extract
    from swp.out_folder import default_folder
    from swp.sources import open_source

    reporter, cancel = Reporter(quiet=quiet, verbose=False), Event()
    tool = f"swp {versions()['skulk-mtp'] or 'unknown'}"
    try:
        with reporter.working():
            found = open_source(checkpoint, source, cancel, reporter.note)
            wish = Wish(layout, compare, license_unknown, jobs)
            target = folder or default_folder(found.repo)
            done = extract(found, target, wish, Catalog.known(), tool, cancel, reporter.bytes)
    finally:
        # no thread goes on once the command has ended
        cancel.set()
    warn_of_nan(done)
    _tell(done, as_json, reporter)


@guarded
def inspect_command(
    checkpoint: Checkpoint, source: SaidSource = None, layout: LayoutName = None, as_json: Json = False
) -> None:
    """Show what `swp extract` would take, and how much it would fetch; reads headers only."""
    from threading import Event

    from skulk_core.catalog import Catalog
    from swp.inspection import inspect_source
    from swp.sources import open_source

    reporter, cancel = Reporter(quiet=False, verbose=False), Event()
    try:
        with reporter.working():
            reporter.step("reading headers")
            opened = open_source(checkpoint, source, cancel, reporter.note)
            found = inspect_source(opened, layout, Catalog.known())
    finally:
        cancel.set()
    if as_json:
        out(json.dumps(found.to_json(), indent=1) + "\n")
    else:
        _show(found)


def warn_of_nan(done: "Extracted") -> None:
    """Say which tensors came out with weights that are not numbers, because upstream's scales are not."""
    if done.nan_scales:
        say(f"warning: scales that are NaN upstream, so weights that are NaN here: {', '.join(done.nan_scales)}")


def _tell(done: "Extracted", as_json: bool, reporter: Reporter) -> None:
    manifest = done.manifest
    if as_json:
        answer = {
            "folder": str(done.folder),
            "source": manifest.source,
            "origin": manifest.origin.value,
            "layout": manifest.layout,
            "num_heads": manifest.num_heads,
            "num_tensors": len(manifest.tensors),
            "shared_tensors": [shared.name for shared in manifest.shared],
            "files": [{"name": file.name, "nbytes": file.nbytes, "sha256": file.sha256} for file in manifest.files],
            "nan_scales": list(done.nan_scales),
            "was_there": done.was_there,
        }
        out(json.dumps(answer, indent=1) + "\n")
        return
    out(f"{visible(str(done.folder))}\n")
    size = f"{manifest.files[0].nbytes / 1e6:,.1f} MB"
    was = "was there already: " if done.was_there else ""
    reporter.note(f"{was}{len(manifest.tensors)} tensors, {size}, {manifest.layout}, from {manifest.source}")
    if manifest.shared:
        reporter.note(f"left out, being the trunk's: {', '.join(shared.name for shared in manifest.shared)}")


def _show(found: "Inspection") -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("tensor", "stored", "shape", "recipe", "file"):
        table.add_column(column, overflow="fold")
    for recipe in found.recipes:
        cells = (recipe.name, recipe.weight.dtype, "x".join(map(str, recipe.shape)), recipe.kind, recipe.weight.file)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    show(table)
    copies = ", ".join(twin.head.name for twin in found.twins)
    licence = found.licence.id if isinstance(found.licence.id, str | None) else ", ".join(found.licence.id)
    named = f" ({found.licence.name})" if found.licence.name else ""
    lines = {
        "source": str(found.source),
        "layout": f"{found.head.layout.name}, {found.head.num_heads} depth(s), {len(found.recipes)} tensors",
        "to fetch": f"{found.fetch_nbytes / 1e6:,.1f} MB, and {found.compare_nbytes / 1e6:,.1f} MB to compare",
        "to write": f"{found.shipped_nbytes / 1e6:,.1f} MB",
        "perhaps shared": copies or "nothing",
        "licence": f"{licence or 'not stated'}{named}",
        "licence files": ", ".join(found.licence_files) or "none",
    }
    for name, value in lines.items():
        out(visible(f"{name}: {value}") + "\n")
    if found.licence.id is None:
        say("the card states no licence: swp extract will ask for --license-unknown")
