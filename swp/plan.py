"""What publishing will do, as data: decided before anything is changed, printed by a dry run, carried out as it is.

Nothing here knows what is published: a `Publication` is a folder with a manifest, a card and named files, whether it is
a sidecar or a vindex. Pure: what is on the Hub comes in as values, and the plan goes out.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from skulk_core.errors import FormatError, NameTaken, OptionError, PublishConflict
from skulk_core.formats.catalog import Entry
from skulk_core.formats.statement import MANIFEST_FILE, Dependency, ReadStatement
from swp.card import CARD_FILE
from swp.remote import CollectionState, Head, Item

_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?", re.ASCII)
_REPO_MAX_LENGTH = 96  # the Hub's own limit


@dataclass(frozen=True)
class Publication:
    """What is to be published: complete, with every digest checked.

    `statement` is its manifest, `items` every file of the repository, card and manifest among them. `entry` is what a
    catalog should say of it once it is published, None for what no catalog lists.
    """

    kind: str
    statement: ReadStatement
    items: tuple[Item, ...]
    entry: Entry | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `FormatError` for a manifest that names a file which no repository takes, or which is ours to make."""
        for name, count in Counter(item.name for item in self.items).items():
            if count > 1 or name.startswith(".") or "/." in name:
                reason = f"{name!r} cannot be published: it is a hidden file, or the name of another file of ours"
                raise FormatError(MANIFEST_FILE, "subject", reason)

    @property
    def source(self) -> Dependency:
        """What it was made from: a repository with its commit."""
        return self.statement.dependencies[0]


@dataclass(frozen=True)
class Theirs:
    """What a repository holds now: its head, and its manifest, or why that cannot be read."""

    head: Head
    manifest: ReadStatement | str


@dataclass(frozen=True)
class Wishes:
    """What was asked for beside the publication itself."""

    private: bool = False
    force: bool = False
    collection: str | None = None


@dataclass(frozen=True)
class CreateRepo:
    """Make the repository."""

    repo: str
    private: bool

    def __str__(self) -> str:
        return f"create the {'private' if self.private else 'public'} repository {self.repo}"


@dataclass(frozen=True)
class Commit:
    """One commit with all files, on top of `parent`, or of the empty repository that was just created if it is None."""

    repo: str
    parent: str | None
    message: str
    add: tuple[Item, ...]
    delete: tuple[str, ...] = ()

    def __str__(self) -> str:
        onto = f"on top of {self.parent}" if self.parent else "as its first"
        return f"commit to {self.repo}, {onto}: {self.message}"


@dataclass(frozen=True)
class Collect:
    """Put the repository into the collection of that title, which is made if there is none."""

    owner: str
    title: str
    repo: str
    private: bool

    def __str__(self) -> str:
        return f"put {self.repo} into the collection {self.title!r} of {self.owner}"


@dataclass(frozen=True)
class Record:
    """Write the entry into the user's own catalog; `replace` what it says of the same repository now."""

    entry: Entry
    replace: bool

    def __str__(self) -> str:
        return f"list {self.entry.repo} as the {self.entry.kind} of {self.entry.base} in your own catalog"


Step = CreateRepo | Commit | Collect | Record


@dataclass(frozen=True)
class Plan:
    """The steps, in order; none means that everything is there already. `notes` are for a person."""

    repo: str
    source: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it; contents of files are left out, their digests are not."""
        return {
            "repo": self.repo,
            "source": self.source,
            "steps": [_step(step) for step in self.steps],
            "notes": list(self.notes),
        }


def repo_name(source_repo: str, suffix: str = "mtp") -> str:
    """The name of what is made from `OWNER/NAME`, without an owner: lower case, dots to dashes, and the suffix."""
    return f"{source_repo.rpartition('/')[2].lower().replace('.', '-')}-{suffix}"


def target_repo(owner: str, name: str) -> str:
    """`OWNER/NAME`. Raises `OptionError` for what the Hub takes for no repository."""
    repo = f"{owner}/{name}"
    for option, part in (("--org", owner), ("--name", name)):
        if not _NAME.fullmatch(part) or "--" in part or ".." in part:
            raise OptionError(option, part, "not a name on the Hub: letters, digits, single dashes, dots, underscores")
    if len(repo) > _REPO_MAX_LENGTH:
        raise OptionError("--name", name, f"{repo} is longer than the {_REPO_MAX_LENGTH} characters of a repository")
    return repo


def make_plan(
    publication: Publication,
    repo: str,
    theirs: Theirs | None,
    collection: CollectionState | None,
    listed: Sequence[Entry],
    wishes: Wishes,
) -> Plan:
    """What is left to do. `theirs` is None if there is no such repository; `listed` is the user's own catalog.

    Raises `NameTaken` if the repository was made from something else, `PublishConflict` if it holds other content and
    `wishes.force` is not set, or is public where private was wished for.
    """
    notes = list(publication.notes)
    steps: list[Step] = [*_repository_steps(publication, repo, theirs, wishes, notes)]
    if wishes.collection is not None and (collection is None or repo not in collection.repos):
        steps.append(Collect(repo.partition("/")[0], wishes.collection, repo, wishes.private))
    if publication.entry is not None and (record := _record(publication.entry, listed, notes)):
        steps.append(record)
    source = publication.source
    commit = source.digest.value if source.digest else ""
    return Plan(repo, f"{source.name}@{commit}", tuple(steps), tuple(notes))


def _repository_steps(
    publication: Publication, repo: str, theirs: Theirs | None, wishes: Wishes, notes: list[str]
) -> list[Step]:
    source = publication.source
    commit = source.digest.value if source.digest else ""
    message = f"{publication.kind} of {source.name}@{commit}"
    if theirs is None:
        return [CreateRepo(repo, wishes.private), Commit(repo, None, message, publication.items)]
    head = theirs.head
    if wishes.private and not head.private:
        raise PublishConflict(repo, "is there and public, and --private was asked for")
    if head.is_new:
        return [Commit(repo, head.sha, message, publication.items)]
    difference = _difference(publication, theirs)
    different = [item.name for item in publication.items if not head.holds([item])]
    stale: tuple[str, ...] = ()
    if isinstance(theirs.manifest, ReadStatement):
        ours = {item.name for item in publication.items}
        stale = tuple(f.name for f in theirs.manifest.subjects if f.name not in ours and head.file(f.name))
    if wishes.force and (different or stale):
        return [Commit(repo, head.sha, message, publication.items, stale)]
    if difference is not None:
        raise PublishConflict(repo, difference)
    if different:
        notes.append(f"{' and '.join(different)} there read differently, though not the weights; --force renews them")
    return []


def _difference(publication: Publication, theirs: Theirs) -> str | None:
    """How what is there differs in source or content; None if only the card, or the program that made it, does.

    Raises `NameTaken` if it was made from another source.
    """
    head, manifest, source = theirs.head, theirs.manifest, publication.source
    if isinstance(manifest, str):
        others = [base for base in head.base_models if base.lower() != source.name.lower()]
        if others:
            raise NameTaken(head.repo, f"belongs to {', '.join(others)}: its card names that as the base model")
        return f"holds something else: {manifest}"
    found = manifest.dependencies[0] if manifest.dependencies else Dependency("", "")
    if found.name.lower() != source.name.lower():
        raise NameTaken(head.repo, f"was made from {found.name}, not from {source.name}")
    if manifest.build_type != publication.statement.build_type:
        raise NameTaken(head.repo, f"is no {publication.kind}: its manifest is of the type {manifest.build_type}")
    if found.digest != source.digest:
        return f"was made from another commit of {source.name}, {found.digest.value if found.digest else 'unknown'}"
    prose = (CARD_FILE, MANIFEST_FILE)
    changed = [item.name for item in publication.items if item.name not in prose and not head.holds([item])]
    if changed:
        return f"has another {' and '.join(changed)}, made from the same commit"
    if not _same_manifest(manifest, publication.statement):
        return "has another manifest for the same files"
    return None


def _same_manifest(one: ReadStatement, other: ReadStatement) -> bool:
    """Whether two manifests say the same of the files.

    Which version of the program wrote them does not count, nor whether the source was read on the Hub or compared with
    it afterwards.
    """

    def said(statement: ReadStatement) -> tuple[object, ...]:
        internal = {key: value for key, value in statement.internal.data.items() if key != "origin"}
        return statement.subjects, statement.external.data, internal, statement.dependencies

    return said(one) == said(other)


def _record(entry: Entry, listed: Sequence[Entry], notes: list[str]) -> Record | None:
    known = next((one for one in listed if one.key == entry.key), None)
    if known is None:
        return Record(entry, replace=False)
    if known.repo.lower() != entry.repo.lower():
        notes.append(f"your catalog lists {known.repo} as the {entry.kind} of {entry.base}; that entry stays")
        return None
    # what a person added to the entry, a depth or a pin, is not lost
    kept = {f.name: getattr(known, f.name) for f in fields(entry) if getattr(entry, f.name) in (None, ())}
    merged = replace(entry, **kept)
    return None if merged == known else Record(merged, replace=True)


def _step(step: Step) -> dict[str, Any]:
    described: dict[str, Any] = {"step": type(step).__name__, "summary": str(step)}
    match step:
        case CreateRepo():
            described |= {"repo": step.repo, "private": step.private}
        case Commit():
            files = [{"name": i.name, "nbytes": i.nbytes, "sha256": i.sha256} for i in step.add]
            described |= {"repo": step.repo, "parent": step.parent, "message": step.message}
            described |= {"add": files, "delete": list(step.delete)}
        case Collect():
            described |= {"owner": step.owner, "title": step.title, "repo": step.repo, "private": step.private}
        case Record():
            described |= {"base": step.entry.base, "repo": step.entry.repo, "replace": step.replace}
    return described
