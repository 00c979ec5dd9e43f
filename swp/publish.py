"""Publishing: from a folder to one commit on the Hub, its collection and its catalog entry.

The order is what makes it safe. Everything local is checked first, then what the Hub holds is looked at, then the plan
is made, and only then is something changed, step by step, as the plan says. An interrupted run leaves at most an empty
repository or uploaded content that no commit names; the next run takes up both.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skulk_core.catalog.user import add_entry
from skulk_core.errors import (
    DigestMismatch,
    FileError,
    FormatError,
    ModelNameError,
    NameTaken,
    NotVerified,
    OptionError,
    SkulkError,
)
from skulk_core.formats.catalog import Entry, SidecarEntry, read_catalog
from skulk_core.formats.provenance import BUILD_TYPE, SCHEMA, Manifest, Origin, read_manifest
from skulk_core.formats.receipt import Receipt
from skulk_core.formats.statement import MANIFEST_FILE, FileRecord, ReadStatement, read_statement, record_file
from skulk_core.hub.refs import DemoRef, FolderRef, RepoRef, parse_model
from swp.card import CARD_FILE, render
from swp.check import check_folder
from swp.hub_write import HubWriter
from swp.licence import UNKNOWN, require_licence
from swp.plan import (
    Collect,
    Commit,
    CreateRepo,
    Plan,
    Publication,
    Record,
    Theirs,
    Wishes,
    make_plan,
    repo_name,
    target_repo,
)
from swp.receipt import best_depth
from swp.remote import Head, Item

# Smaller files are held in memory from the moment their digest is taken until they are sent.
_SMALL_NBYTES = 1 << 20
_MAX_MANIFEST_NBYTES = 128 << 20
_SIDECARS: Mapping[str, int] = {BUILD_TYPE: SCHEMA}


@dataclass(frozen=True)
class Published:
    """What was done. `commit` is the SHA made, None if there was nothing to commit."""

    repo: str
    url: str
    commit: str | None
    done: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """What `swp publish` was given: a folder that was extracted, or (`folder` None) a commit to extract from."""

    repo: str
    revision: str
    folder: Path | None


def source_of(target: str) -> Source:
    """Read a DIR or REPO@SHA. Raises `ModelNameError` for what is neither, `FileError` and `FormatError`."""
    ref = parse_model(target)
    match ref:
        case FolderRef(path):
            if not (path / MANIFEST_FILE).exists():
                raise FileError(path, f"holds no {MANIFEST_FILE}: `swp extract` makes the folder that is published")
            manifest = read_manifest(path)
            return Source(manifest.source_repo, manifest.source_sha, path)
        case RepoRef():
            return Source(ref.repo, ref.revision, None)
        case DemoRef():
            raise ModelNameError(target, "the demo's sidecar is part of the installation; there is nothing to publish")


def permitted_repo(writer: HubWriter, source_repo: str, org: str | None, name: str | None, suffix: str = "mtp") -> str:
    """Where to publish: `ORG/NAME`, once the login is known to have the right to. Nothing is fetched or changed.

    `org` is None if it was not given, empty for the login's only organisation; `name` defaults to `repo_name`. Raises
    `OptionError`, `LoginError`, `PermissionDenied`.
    """
    if org is None:
        raise OptionError("--org", "(missing)", "say where to publish; --org alone is your only organisation")
    name = name or repo_name(source_repo, suffix)
    login = writer.login(f"{org or 'your organisation'}/{name}")
    repo = target_repo(org or login.only_organisation(), name)
    login.require(repo)
    return repo


def sidecar_publication(
    folder: Path, repo: str, *, receipt: Receipt | None = None, licence_unknown: bool = False
) -> Publication:
    """The sidecar in `folder`, to be published as `repo`; every file and every tensor is compared with the manifest.

    The card is rendered anew, with the name of the repository and the figures of `receipt` in it. Raises `NotVerified`
    for a folder whose source is asserted, `DigestMismatch` naming file or tensor, `LicenceUnknown`, `FileError` and
    `FormatError`, `OtherSidecar` for a receipt of another one.
    """
    manifest = read_manifest(folder)
    if manifest.origin is Origin.ASSERTED:
        raise NotVerified(folder, f"was read from a local folder that was said to be {manifest.source}")
    require_licence(manifest.licence, manifest.source, licence_unknown)
    card = render(manifest, repo=repo, receipt=receipt)
    check_folder(folder, manifest).require(folder)
    items = [item_of(folder, record) for record in manifest.files]
    items += [item_of(folder, record_file(folder, MANIFEST_FILE)), card_item(card)]
    return Publication(
        manifest.kind,
        read_statement(folder / MANIFEST_FILE, _SIDECARS),
        tuple(items),
        catalog_entry(manifest, repo, receipt),
        _edited_card_note(folder, manifest),
    )


def item_of(folder: Path, record: FileRecord) -> Item:
    """A file of the folder. Raises `FileError`, `DigestMismatch` if a small one is not what `record` says any more."""
    path = folder / record.name
    if record.nbytes > _SMALL_NBYTES:
        return Item(record.name, path, record.nbytes, record.sha256)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise DigestMismatch(path, "changed while it was being published")
    return Item(record.name, content, record.nbytes, record.sha256)


def card_item(card: str) -> Item:
    """The card as a file of the repository."""
    content = card.encode("utf-8")
    return Item(CARD_FILE, content, len(content), hashlib.sha256(content).hexdigest())


def catalog_entry(manifest: Manifest, repo: str, receipt: Receipt | None) -> SidecarEntry:
    """What a catalog says of the sidecar; with a receipt, the depth that was fastest on so many hosts."""
    depth, hosts = (best_depth(receipt), receipt.hosts) if receipt else (None, 1)
    identifier = manifest.licence.id
    licence = identifier if isinstance(identifier, str) else ", ".join(identifier or (UNKNOWN,))
    return SidecarEntry(
        base=manifest.source_repo,
        repo=repo,
        licence=licence,
        source_sha=manifest.source_sha,
        layout=manifest.layout,
        conventions=manifest.conventions,
        default_depth=depth if hosts == 1 else None,
        depth_by_hosts=() if hosts == 1 or depth is None else ((hosts, depth),),
    )


def look(writer: HubWriter, repo: str, schemas: Mapping[str, int] = _SIDECARS) -> Theirs | None:
    """What is at `repo` now; None only if the Hub says that nothing is. Manifests of `schemas` can be read."""
    head = writer.head(repo)
    return None if head is None else Theirs(head, _read_theirs(writer, head, schemas))


def refuse_if_taken(theirs: Theirs | None, source_repo: str) -> None:
    """Raise `NameTaken` if the repository was made from another source: worth knowing before a long extraction."""
    if theirs is None or isinstance(theirs.manifest, str) or not theirs.manifest.dependencies:
        return
    found = theirs.manifest.dependencies[0].name
    if found.lower() != source_repo.lower():
        raise NameTaken(theirs.head.repo, f"was made from {found}, not from {source_repo}")


def prepare(writer: HubWriter, publication: Publication, repo: str, wishes: Wishes, catalog: Path) -> Plan:
    """Look at what is there and plan what is left to do; nothing is changed. `catalog` is the user's own.

    Raises as `make_plan` does, and the errors of looking: a question without an answer is never taken for "nothing".
    """
    statement = publication.statement
    theirs = look(writer, repo, {statement.build_type: statement.internal.integer("schema")})
    collection = None
    if wishes.collection is not None:
        collection = writer.find_collection(repo.partition("/")[0], wishes.collection)
    listed: tuple[Entry, ...] = read_catalog(catalog) if catalog.exists() else ()
    plan = make_plan(publication, repo, theirs, collection, listed, wishes)
    for step in plan.steps:
        if isinstance(step, Commit):
            card = next(item.content for item in step.add if item.name == CARD_FILE)
            assert isinstance(card, bytes), "a card is held in memory"
            writer.check_card(repo, card.decode("utf-8"))
    return plan


def apply(plan: Plan, writer: HubWriter, catalog: Path, on_step: Callable[[str], None]) -> Published:
    """Carry out the plan. `on_step` is told of every step before it begins."""
    created: Head | None = None
    commit: str | None = None
    done = []
    for step in plan.steps:
        on_step(str(step))
        match step:
            case CreateRepo():
                created = writer.create(step.repo, step.private)
            case Commit():
                parent = step.parent or (created.sha if created else None)
                assert parent is not None, "a plan without a parent creates the repository first"
                try:
                    commit = writer.commit(step.repo, parent, step.add, step.delete, step.message)
                except BaseException:
                    if created is not None:
                        on_step(f"{step.repo} was created and is empty; the same command goes on from there")
                    raise
            case Collect():
                writer.collect(step.owner, step.title, step.repo, step.private)
            case Record():
                add_entry(catalog, step.entry, replace=step.replace)
        done.append(str(step))
    return Published(plan.repo, f"{writer.endpoint}/{plan.repo}", commit, tuple(done))


def _read_theirs(writer: HubWriter, head: Head, schemas: Mapping[str, int]) -> ReadStatement | str:
    file = head.file(MANIFEST_FILE)
    if file is None:
        return f"it has no {MANIFEST_FILE}"
    if file.nbytes > _MAX_MANIFEST_NBYTES:
        return f"its {MANIFEST_FILE} is too large to be one"
    with tempfile.TemporaryDirectory(prefix="swp-") as folder:
        path = writer.fetch(head.repo, head.sha, MANIFEST_FILE, Path(folder))
        try:
            return read_statement(path, schemas)
        except FormatError as error:
            return f"its {MANIFEST_FILE} cannot be read: {error.reason}"


def _edited_card_note(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Somebody may have written into the folder's card; only what the manifest says is published."""
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        untouched = text == render(manifest)
    except (OSError, UnicodeDecodeError, SkulkError):
        return ()
    return () if untouched else (f"{CARD_FILE} in {folder} was changed; the card published is made from the manifest",)
