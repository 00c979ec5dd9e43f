"""The card of a vindex, and what of one is published."""

import shlex
from pathlib import Path

from markupsafe import Markup

from skulk_core.errors import DigestMismatch
from skulk_core.formats.catalog import VindexEntry
from skulk_core.formats.provenance import HUB_URI
from skulk_core.formats.statement import MANIFEST_FILE, read_statement, record_file
from skulk_core.formats.vindex import BUILD_TYPE, PROGRAM_URI, SCHEMA, VindexManifest, read_vindex
from skulk_core.hub.licences import licence_files
from swp.card import CARD_FILE, as_text, front_matter, render_template
from swp.licence import UNKNOWN, licence_fields, require_licence
from swp.plan import Publication
from swp.publish import card_item, item_of
from swp.vindex_check import check_vindex

# A vindex is a quantised copy of all weights of the model in another order, or a part of one.
RELATION = "quantized"
LIBRARY = "larql"
TAGS = ("vindex", "larql")

_TEMPLATE = "vindex_card.md.j2"


def render_vindex(manifest: VindexManifest, repo: str | None = None) -> str:
    """The card, the same for the same values. `repo` is where it is or will be published; without, the folder."""
    fields = licence_fields(manifest.licence)
    ids = fields["license"]
    source_link = Markup(
        f"[{as_text(manifest.source_repo)}]({HUB_URI}{_address(manifest.source_repo)}/tree/{manifest.source_sha})"
    )
    return render_template(
        _TEMPLATE,
        manifest=manifest,
        front_matter=Markup(
            front_matter(manifest.source_repo, fields, (*TAGS, manifest.quant), relation=RELATION, library=LIBRARY)
        ),
        title=repo or f"{manifest.source_repo}: vindex",
        source_link=source_link,
        program_link=Markup(f"[{as_text(manifest.program)}]({PROGRAM_URI})"),
        where=repo or ".",
        commands=[shlex.join(command) for command in manifest.commands],
        nbytes=sum(file.nbytes for file in manifest.files),
        licence={
            "unknown": not manifest.licence.id,
            "ids": ids if isinstance(ids, str) else ", ".join(ids),
            "files": licence_files(file.name for file in manifest.files),
        },
    )


def vindex_publication(folder: Path, repo: str, *, licence_unknown: bool = False) -> Publication:
    """The vindex in `folder`, to be published as `repo`; every file is compared with the manifest.

    Raises `DigestMismatch` for the first file that differs, `LicenceUnknown`, `FileError` and `FormatError`.
    """
    manifest = read_vindex(folder)
    require_licence(manifest.licence, manifest.source, licence_unknown)
    failed = [check for check in check_vindex(folder, manifest) if not check.ok]
    if failed:
        more = f" ({len(failed)} differences in all)" if len(failed) > 1 else ""
        raise DigestMismatch(folder / failed[0].name, failed[0].detail + more)
    items = [item_of(folder, record) for record in manifest.files]
    items += [item_of(folder, record_file(folder, MANIFEST_FILE)), card_item(render_vindex(manifest, repo))]
    statement = read_statement(folder / MANIFEST_FILE, {BUILD_TYPE: SCHEMA})
    return Publication(manifest.kind, statement, tuple(items), catalog_entry(manifest, repo), _notes(folder, manifest))


def catalog_entry(manifest: VindexManifest, repo: str) -> VindexEntry:
    """What a catalog says of the vindex."""
    identifier = manifest.licence.id
    return VindexEntry(
        base=manifest.source_repo,
        repo=repo,
        licence=identifier if isinstance(identifier, str) else ", ".join(identifier or (UNKNOWN,)),
        source_sha=manifest.source_sha,
        quant=manifest.quant,
        slice=manifest.slice,
        program=str(manifest.program),
    )


def _address(repo: str) -> str:
    """A repository's name in an address: what could end the link is not in a name, and is left out of it."""
    return "".join(
        character for character in repo if character.isascii() and (character.isalnum() or character in "._-/")
    )


def _notes(folder: Path, manifest: VindexManifest) -> tuple[str, ...]:
    try:
        untouched = (folder / CARD_FILE).read_text(encoding="utf-8") == render_vindex(manifest)
    except (OSError, UnicodeDecodeError):
        return ()
    return () if untouched else (f"{CARD_FILE} in {folder} was changed; the card published is made from the manifest",)
