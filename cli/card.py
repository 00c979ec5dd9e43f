"""`skulk card show|set|edit`: how a model is run on this person's machines."""

import hashlib
import io
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import options
from cli.depth import read_depth
from cli.errors import guarded
from cli.render import out, say, visible
from skulk_core.catalog import Catalog, user_catalog
from skulk_core.catalog.foreseen import foresee
from skulk_core.catalog.lookup import card_name
from skulk_core.catalog.user import change_card
from skulk_core.errors import EditorError, FormatError, OptionError, UnfinishedCard
from skulk_core.formats.cards import Card, card_mapping, read_card
from skulk_core.formats.suggest import near_miss
from skulk_core.formats.yaml_file import parse_yaml, read_text
from skulk_core.hub.refs import parse_sidecar, parse_trunk
from skulk_core.runtime.device import load_mlx
from skulk_core.runtime.userfiles import write_atomically

JSON_SCHEMA = 1
# as the options of `run`, but for auto, which a card says by saying nothing
DtypeName = Literal["float32", "bfloat16", "float16"]
PrecisionName = Literal["trunk", "float32", "bfloat16", "float16", "8bit", "4bit"]
UNSET = ("depth", "sidecar", "dtype", "head-precision")
Hosts = Annotated[int, typer.Option(metavar="N", help="Speak of this many hosts, or more.")]
_EDITORS = ("VISUAL", "EDITOR")


def make_card_app() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(no_args_is_help=True, help="Keep how a model is to be run here: draft depth, sidecar, dtype.")
    app.command("show")(show_command)
    app.command("set")(set_command)
    app.command("edit")(edit_command)
    return app


@guarded
def show_command(model: options.Model, hosts: Hosts = 1, json_output: options.Json = False) -> None:
    """Print what `skulk run MODEL` goes by, and where each of it is written."""
    options.at_least("--hosts", hosts, 1)
    load_mlx()
    from skulk_core.heads.finding import DEMO_DEPTH

    ref, catalog = parse_trunk(model), Catalog.known()
    card, found = catalog.card_of(ref), foresee(ref, catalog, hosts, DEMO_DEPTH)
    if json_output:
        top = {"schema": JSON_SCHEMA, "model": card_name(ref), "hosts": hosts}
        out(json.dumps({**top, **asdict(found), "card": None if card is None else card_mapping(card)}) + "\n")
        return
    out(visible(card_name(ref)) + "\n")
    on = f"depth on {hosts} host{'s' if hosts > 1 else ''}"
    rows = ((on, found.depth), ("sidecar", found.sidecar), ("dtype", found.dtype))
    for name, one in (*rows, ("head precision", found.head_precision)):
        value = "none" if one.value is None else str(one.value)
        out(visible(f"  {name:<16}  {value}  ({one.because})") + "\n")
    depths = "" if card is None else ", ".join(f"{depth} from {number} hosts" for number, depth in card.depth_by_hosts)
    if depths:
        out(f"  {'by hosts':<16}  {depths}  (your card)\n")
    out(visible(f"  your card: {user_catalog()}" if card is not None else "  no card of your own") + "\n")


@guarded
def set_command(
    model: options.Model,
    depth: Annotated[str | None, typer.Option(metavar="N|auto", help="Tokens to draft a round.")] = None,
    hosts: Annotated[
        int, typer.Option(metavar="N", help="The depth holds from so many hosts on. Default: for one, and more.")
    ] = 1,
    sidecar: options.Sidecar = None,
    dtype: Annotated[
        DtypeName | None,
        typer.Option(parser=options.one_of(DtypeName), metavar="TYPE", help="float32, bfloat16 or float16."),
    ] = None,
    head_precision: Annotated[
        PrecisionName | None,
        typer.Option(
            parser=options.one_of(PrecisionName),
            metavar="PRECISION",
            help="trunk, float32, bfloat16, float16, 8bit or 4bit.",
        ),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Take one out: depth (of --hosts), sidecar, dtype, head-precision."),
    ] = None,
    json_output: options.Json = False,
) -> None:
    """Write the card of a model: everything that is given, and nothing else."""
    options.at_least("--hosts", hosts, 1)
    changes = (depth, sidecar, dtype, head_precision, unset)
    if not any(change is not None for change in changes):
        raise OptionError("skulk card set", "", "says nothing; give --depth, --sidecar, --dtype, …, or --unset NAME")
    for name in unset or ():
        if name not in UNSET:
            raise OptionError("--unset", name, f"not one of {', '.join(UNSET)}{near_miss(name, UNSET)}")
    number = read_depth(depth, "--depth")

    def changed(card: Card) -> Card:
        for name in unset or ():
            card = _without(card, name, hosts)
        if number is not None and hosts == 1:
            card = replace(card, default_depth=number)
        elif number is not None:
            by_hosts = {**dict(card.depth_by_hosts), hosts: number}
            card = replace(card, depth_by_hosts=tuple(sorted(by_hosts.items())))
        return replace(
            card,
            sidecar=placed(sidecar) or card.sidecar,
            dtype=dtype or card.dtype,
            head_precision=head_precision or card.head_precision,
        )

    _change(model, changed, json_output)


@guarded
def edit_command(model: options.Model) -> None:
    """Open the card of a model in your editor ($VISUAL, else $EDITOR).

    What is wrong with it is not written into the catalog, and opened again the next time.
    """
    _change(model, _in_editor, json_output=False)
    _page_of(card_name(parse_trunk(model))).unlink(missing_ok=True)


def _change(model: str, change: Callable[[Card], Card], json_output: bool) -> None:
    path = user_catalog()
    card, done = change_card(path, card_name(parse_trunk(model)), change)
    if json_output:
        out(json.dumps({"schema": JSON_SCHEMA, "change": done.value, "card": card_mapping(card)}) + "\n")
        return
    say(f"{done.value}: the card of {card.model} in {path}")


def _without(card: Card, name: str, hosts: int) -> Card:
    if name == "depth" and hosts > 1:
        return replace(card, depth_by_hosts=tuple(pair for pair in card.depth_by_hosts if pair[0] != hosts))
    match name:
        case "depth":
            return replace(card, default_depth=None)
        case "sidecar":
            return replace(card, sidecar=None)
        case "dtype":
            return replace(card, dtype=None)
    return replace(card, head_precision=None)


def placed(sidecar: str | None) -> str | None:
    """A path from the root: the card is read from anywhere. Raises as `parse_sidecar` does."""
    if sidecar is None:
        return None
    parse_sidecar(sidecar)
    path = Path(os.path.expanduser(sidecar))
    return str(path.resolve()) if path.exists() else sidecar


_PAGE = """# The card of {model}. Keys, all of which may be left out:
#   default_depth: 2            tokens to draft on one host: a number, or auto
#   depth_by_hosts: {{2: 1}}      from so many hosts on, another depth, or auto
#   sidecar: OWNER/NAME         or a path: the draft head to take
#   dtype: float32              float32, bfloat16, float16
#   head_precision: 8bit        trunk, float32, bfloat16, float16, 8bit, 4bit
schema: 1
"""


def _in_editor(card: Card) -> Card:
    """What a person makes of the card, or of what they wrote before that was wrong.

    Raises `UnfinishedCard`, whose file keeps what they wrote; `EditorError` without an editor.
    """
    page = _page_of(card.model)
    begun = not page.exists()
    if begun:
        _write_page(page, card)
    else:
        say(f"{page}: what you wrote last time, which was wrong")
    try:
        _run_editor(page)
    except EditorError:
        if begun:
            page.unlink(missing_ok=True)
        raise
    try:
        top = parse_yaml(page, read_text(page), 1)
        if "model" in top.data:
            raise FormatError(page, "model", "is the model's own name and cannot be changed")
        top.data["model"] = card.model
        del top.data["schema"]
        return read_card(top)
    except FormatError as error:
        raise UnfinishedCard(page, error.reason, card.model) from error


def _page_of(model: str) -> Path:
    """Where the card of `model` is edited: at one place, so that a text with a mistake is found again."""
    digest = hashlib.sha256(model.encode()).hexdigest()[:12]
    return user_catalog().with_name(f"card-{digest}.yaml")


def _write_page(page: Path, card: Card) -> None:
    """The card with what may stand in it. Raises `FileError`."""
    from ruamel.yaml import YAML

    stream = io.StringIO()
    stream.write(_PAGE.format(model=visible(card.model)))
    if not card.is_empty:
        YAML().dump({key: value for key, value in card_mapping(card).items() if key != "model"}, stream)
    write_atomically(page, stream.getvalue())


def _run_editor(page: Path) -> None:
    name = next((os.environ[name] for name in _EDITORS if os.environ.get(name)), "vi")
    try:
        status = subprocess.run([*shlex.split(name), str(page)], check=False).returncode
    except OSError as error:
        raise EditorError(name, f"cannot be started: {error.strerror or error}") from error
    if status:
        raise EditorError(name, f"ended with status {status}; the card is as it was")
