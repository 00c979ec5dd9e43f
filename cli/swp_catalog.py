"""`swp catalog`: what is known of models and their heads, how a model is looked up, and adding to it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options
from cli.errors import guarded
from cli.render import out, visible
from skulk_core.errors import NotInCatalog

if TYPE_CHECKING:
    from skulk_core.catalog import Entry, Resolution

JSON_SCHEMA = 1

Kind = Literal["sidecar", "assistant", "vindex"]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    from cli.swp_catalog_add import add_command

    catalog = typer.Typer(
        no_args_is_help=True, help="Show the models with known heads, look a model up, add entries of your own."
    )
    catalog.command("list")(list_command)
    catalog.command("show")(show_command)
    catalog.command("find")(find_command)
    catalog.command("add")(add_command)
    catalog.command("validate")(validate_command)
    app.add_typer(catalog, name="catalog")


@guarded
def list_command(
    kind: Annotated[
        Kind | None,
        typer.Option(
            parser=options.one_of(Kind), metavar="KIND", help="Only sidecar, assistant or vindex. Default: all."
        ),
    ] = None,
    json_output: options.Json = False,
) -> None:
    """List what is known: the catalog that comes with the program and your own."""
    from skulk_core.catalog import Catalog

    entries = [entry for entry in Catalog.known().entries if kind in (None, entry.kind)]
    if json_output:
        print_json({"entries": [entry_as_json(entry) for entry in entries]})
        return
    rows = [("kind", "base", "repo", "what", "depth", "from")]
    rows += [(e.kind, e.base, e.repo, _what(e), _depths(e), _origin(e)) for e in entries]
    widths = [max(len(visible(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (visible(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        out("  ".join(cells).rstrip() + "\n")


@guarded
def show_command(
    name: Annotated[str, typer.Argument(help="A base model, or the repository of a head: OWNER/NAME.")],
    json_output: options.Json = False,
) -> None:
    """Show every entry of one base model, or the one of a repository."""
    from skulk_core.catalog import Catalog
    from skulk_core.formats.suggest import near_miss

    catalog = Catalog.known()
    entries = catalog.named(name)
    if not entries:
        known = [known for entry in catalog.entries for known in (entry.base, entry.repo)]
        raise NotInCatalog(
            name, f"the catalog lists neither a base nor a repository of this name{near_miss(name, known)}"
        )
    if json_output:
        print_json({"entries": [entry_as_json(entry) for entry in entries]})
    else:
        out("\n".join(map(_in_full, entries)))


@guarded
def find_command(
    model: Annotated[
        str, typer.Argument(help="A repository OWNER/NAME@REVISION, its address on the Hub, or a checkpoint folder.")
    ],
    kind: Annotated[
        Kind | None, typer.Option(metavar="KIND", help="Look for a sidecar, assistant or vindex only. Default: any.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show every step of the look-up.")] = False,
    json_output: options.Json = False,
) -> None:
    """Find the base model of any quantised, tuned or merged model, and what is published for it.

    Looks at the model's own name, at the base models that model cards name, at its config.json, and at names, in this
    order. Exits with 1, and shows every step, if nothing is found.
    """
    from skulk_core.catalog import Catalog, Subject, resolve

    entries = [entry for entry in Catalog.known().entries if kind in (None, entry.kind)]
    found = resolve(Subject.parse(model), entries)
    if json_output:
        print_json(_found_as_json(found))
        found.require()
        return
    if explain or not found.entries:
        out("".join(f"{number}. {visible(str(step))}\n" for number, step in enumerate(found.steps, 1)))
    found.require()
    if not explain:
        out(f"{visible(found.because)}\n")
    out("".join(f"{entry.kind}: {entry.repo} ({_what(entry)}, depth {_depths(entry)})\n" for entry in found.entries))


@guarded
def validate_command(
    file: Annotated[
        Path | None, typer.Argument(help="A catalog file. Default: the one that comes with the program, and your own.")
    ] = None,
    json_output: options.Json = False,
) -> None:
    """Check a catalog: every key, every value; a mistake is named by line and key."""
    from collections import Counter

    from skulk_core.catalog import user_catalog
    from skulk_core.formats.catalog import read_catalog
    from skulk_core.runtime.resources import catalog_path

    files = [catalog_path(), *([own] if (own := user_catalog()).exists() else [])] if file is None else [file]
    counts = {path: Counter(entry.kind for entry in read_catalog(path)) for path in files}
    if json_output:
        print_json({"files": [{"path": str(path), **count} for path, count in counts.items()]})
        return
    for path, count in counts.items():
        kinds = ", ".join(f"{number} {kind}" for kind, number in count.items()) or "no entries"
        out(f"{visible(str(path))}: valid, {kinds}\n")


def _what(entry: "Entry") -> str:
    from skulk_core.catalog import HeadEntry

    return entry.layout if isinstance(entry, HeadEntry) else f"{entry.quant or 'unknown quant'}, {entry.slice}"


def _depths(entry: "Entry") -> str:
    from skulk_core.catalog import HeadEntry

    if not isinstance(entry, HeadEntry):
        return "-"
    default = "?" if entry.default_depth is None else str(entry.default_depth)
    return "; ".join([default, *(f"{depth} from {hosts} hosts" for hosts, depth in entry.depth_by_hosts)])


def _origin(entry: "Entry") -> str:
    from skulk_core.catalog import user_catalog

    return "yours" if entry.origin == user_catalog() else "shipped"


def entry_as_json(entry: "Entry") -> dict[str, Any]:
    """The entry as its file has it, and which file that is."""
    from skulk_core.formats.catalog import to_mapping

    return {**to_mapping(entry), **({} if entry.origin is None else {"origin": str(entry.origin)})}


def _in_full(entry: "Entry") -> str:
    lines: list[str] = []
    for key, value in entry_as_json(entry).items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {item}" for name, item in value.items())
        lines.append(f"{key + ':':15} {visible(str(value))}\n")
    return "".join(lines)


def _found_as_json(found: "Resolution[Entry]") -> dict[str, Any]:
    return {
        "asked": found.asked,
        "base": found.base,
        "because": found.because,
        "candidates": found.candidates,
        "entries": [entry_as_json(entry) for entry in found.entries],
        "steps": [{"rule": s.rule, "outcome": s.outcome, "said": s.said, "bases": s.bases} for s in found.steps],
    }


def print_json(content: dict[str, Any]) -> None:
    """One object on stdout."""
    out(json.dumps({"schema": JSON_SCHEMA, **content}) + "\n")
