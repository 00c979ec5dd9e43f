"""`provenance.json` of a vindex, schema 1: what it was made from, by which program, and the digest of every file.

A vindex is a folder that the program `larql` makes of a model. Its own `index.json` has checksums of some files only,
and no field of it tells old orders of blocks apart; so this manifest names every file, and the program by its version
and by the digest of its executable. It is an in-toto statement (`statement.py`) with the build type
`urn:skulk-mtp:vindex:v1`. Its subjects are the files of the folder except itself and the card. `externalParameters`:

    source       OWNER/NAME@SHA
    quant        how larql was told to quantise
    slice        the preset it was cut by, or `whole`

`internalParameters` are `schema`, `program` (name, version, sha256 and size of the executable), `commands` (the
arguments it was run with, each command a list, paths relative to one working folder) and `licence`.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from skulk_core.errors import FormatError
from skulk_core.formats.catalog import WHOLE, is_commit
from skulk_core.formats.json_file import JsonSection
from skulk_core.formats.provenance import HUB_URI, Licence
from skulk_core.formats.statement import (
    MANIFEST_FILE,
    Dependency,
    Digest,
    FileRecord,
    Statement,
    read_statement,
    sha256_of,
)

SCHEMA = 1
BUILD_TYPE = "urn:skulk-mtp:vindex:v1"
INDEX_FILE = "index.json"
PROGRAM_URI = "https://github.com/chrishayuk/larql"


@dataclass(frozen=True)
class Program:
    """An executable: the name and version it gives itself, its digest in hexadecimal digits, its size."""

    name: str
    version: str
    sha256: str
    nbytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class VindexManifest:
    """Everything known of one vindex. `source_sha` is the commit of the model it was made from.

    `slice` is the preset it was cut by, or `WHOLE`; `commands` are the arguments `program` was run with. `files` are
    those of the folder except the card and the manifest itself. `tool` is our own name and version.
    """

    source_repo: str
    source_sha: str
    quant: str
    slice: str
    program: Program
    commands: tuple[tuple[str, ...], ...]
    licence: Licence
    files: tuple[FileRecord, ...]
    tool: str
    kind: str = field(default="vindex", init=False)

    @property
    def source(self) -> str:
        """`OWNER/NAME@SHA`."""
        return f"{self.source_repo}@{self.source_sha}"

    @property
    def is_whole(self) -> bool:
        """Whether it is no slice."""
        return self.slice == WHOLE

    def to_json(self) -> str:
        """The text of `provenance.json`; the same for the same values."""
        name, _, version = self.tool.partition(" ")
        external = {"source": self.source, "quant": self.quant, "slice": self.slice}
        internal = {
            "schema": SCHEMA,
            "program": asdict(self.program),
            "commands": [list(command) for command in self.commands],
            "licence": asdict(self.licence),
        }
        made_from = (
            Dependency(self.source_repo, f"{HUB_URI}{self.source_repo}", Digest("gitCommit", self.source_sha)),
            Dependency(str(self.program), PROGRAM_URI, Digest("sha256", self.program.sha256), self.program.nbytes),
        )
        return Statement(BUILD_TYPE, self.files, external, internal, made_from, name, version).to_json()


def read_vindex(path: Path) -> VindexManifest:
    """Read the manifest `path`, a `provenance.json` or the folder that holds one.

    Raises `FileError` if it cannot be read, `FormatError` naming the key that does not follow the schema.
    """
    path = path / MANIFEST_FILE if path.is_dir() else path
    statement = read_statement(path, {BUILD_TYPE: SCHEMA})
    internal, external = statement.internal, statement.external
    internal.only(("schema", "program", "commands", "licence"))
    external.only(("source", "quant", "slice"))
    repo, _, sha = external.text("source").rpartition("@")
    if not repo or not is_commit(sha):
        raise external.error("source", "is not OWNER/NAME@ and a commit of 40 hexadecimal digits")
    first = statement.dependencies[0] if statement.dependencies else None
    if first is None or (first.name, str(first.digest)) != (repo, f"gitCommit:{sha}"):
        raise FormatError(path, "predicate.buildDefinition.resolvedDependencies[0]", f"is not {repo}@{sha}")
    return VindexManifest(
        source_repo=repo,
        source_sha=sha,
        quant=external.text("quant"),
        slice=external.text("slice"),
        program=_program(internal.section("program")),
        commands=_commands(internal),
        licence=_licence(internal.section("licence")),
        files=statement.subjects,
        tool=f"{statement.program} {statement.version}",
    )


def _program(section: JsonSection) -> Program:
    return Program(section.text("name"), section.text("version"), sha256_of(section), section.integer("nbytes"))


def _commands(section: JsonSection) -> tuple[tuple[str, ...], ...]:
    commands = section.data.get("commands")
    if not isinstance(commands, list) or not all(
        isinstance(command, list) and command and all(isinstance(word, str) for word in command) for command in commands
    ):
        raise section.error("commands", "must be a list of commands, each a list of texts")
    return tuple(tuple(command) for command in commands)


def _licence(section: JsonSection) -> Licence:
    several = isinstance(section.data.get("id"), list)
    identifier = section.texts("id") if several else _optional(section, "id")
    return Licence(identifier, _optional(section, "name"), _optional(section, "link"))


def _optional(section: JsonSection, key: str) -> str | None:
    return section.text(key) if section.has(key) else None
