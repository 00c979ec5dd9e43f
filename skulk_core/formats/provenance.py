"""`provenance.json` of an extracted sidecar, schema 1: enough to render its card and to extract it again.

It is an in-toto statement (`statement.py`) with the build type `urn:skulk-mtp:extract:v1`. Its subjects are the files
of the folder except itself and the card. `externalParameters` are what was asked for:

    source       OWNER/NAME@SHA
    layout       the layout that was asked for by name, or null
    compare      whether embedding and LM head were compared with the trunk's

`internalParameters` are what the program found: `schema`, and the fields of `Manifest` under their own names, except
those that the statement already has. Byte ranges are half-open, `[begin, end)`, and count from the file's beginning.
Tensor names and dtypes are upstream's; digests are of the bytes as they stand in the files.
"""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from skulk_core.errors import FormatError
from skulk_core.formats.json_file import JsonSection
from skulk_core.formats.sidecar import TrunkFingerprint
from skulk_core.formats.statement import (
    MANIFEST_FILE,
    Dependency,
    Digest,
    FileRecord,
    ReadStatement,
    Statement,
    read_statement,
    sha256_of,
)
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

__all__ = ["MANIFEST_FILE", "Digest", "FileRecord", "Manifest", "read_manifest"]

SCHEMA = 1
BUILD_TYPE = "urn:skulk-mtp:extract:v1"
HUB_URI = "https://huggingface.co/"


class Origin(StrEnum):
    """Whether the bytes were fetched from the source commit, or read from a folder said to be that commit.

    `verified` is asserted, and later compared with that commit by `swp verify`, which alone writes it.
    """

    FETCHED = "fetched"
    ASSERTED = "asserted"
    VERIFIED = "verified"


@dataclass(frozen=True)
class SourcePiece:
    """A tensor as upstream has it. `role` is `weight`, `scale` or `global_scale`; `dtype` the safetensors name."""

    role: str
    name: str
    file: str
    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as shipped, and what it was made from: its weight first, then its scales, by `recipe`.

    Recipes: `copy` (bit for bit), `cast` (rounded to BF16, nearest, ties to even), or a dequantisation (`swp.dequant`).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    sha256: str
    source: tuple[SourcePiece, ...]
    recipe: str


@dataclass(frozen=True)
class SharedTensor:
    """A tensor of the head that is not shipped, because the trunk's tensor `trunk_name` has the same bytes.

    `compared` is always `whole`: both were read to their ends. `source` is the head's copy, `trunk` the trunk's.
    """

    name: str
    trunk_name: str
    nbytes: int
    compared: str
    source: SourcePiece
    trunk: SourcePiece


@dataclass(frozen=True)
class Licence:
    """The licence fields of upstream's card, unchanged. `id` is None where it has none, a tuple where it has a list."""

    id: str | tuple[str, ...] | None = None
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class SourceFile:
    """A weight file of upstream that something was taken from; `sha256` is None where the Hub does not state it."""

    name: str
    nbytes: int
    sha256: str | None


@dataclass(frozen=True)
class ModelFacts:
    """What config.json says of the model. `quant_method` is None for one that is not quantised."""

    model_type: str
    architectures: tuple[str, ...] = ()
    quant_method: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Everything known of one extracted sidecar.

    `source_sha` is the commit the bytes came from, 40 hexadecimal digits. `files` are the files of the folder except
    the card and the manifest itself, `source_files` those of upstream that were read. `compared` tells whether shared
    tensors were looked for, `layout_asked` the layout asked for by name. `tool` is the program's name and version.
    """

    source_repo: str
    source_sha: str
    origin: Origin
    layout: str
    num_heads: int
    conventions: Conventions
    trunk: TrunkFingerprint
    tensors: tuple[TensorRecord, ...]
    shared: tuple[SharedTensor, ...]
    licence: Licence
    files: tuple[FileRecord, ...]
    compared: bool
    tool: str
    source_files: tuple[SourceFile, ...]
    model_facts: ModelFacts
    layout_asked: str | None = None
    kind: str = field(default="sidecar", init=False)

    @property
    def source(self) -> str:
        """`OWNER/NAME@SHA`."""
        return f"{self.source_repo}@{self.source_sha}"

    def to_json(self) -> str:
        """The text of `provenance.json`; the same for the same values."""
        program, _, version = self.tool.partition(" ")
        internal = {"schema": SCHEMA, **{name: value for name, value in asdict(self).items() if name in _INTERNAL}}
        external = {"source": self.source, "layout": self.layout_asked, "compare": self.compared}
        return Statement(BUILD_TYPE, self.files, external, internal, self._dependencies(), program, version).to_json()

    def _dependencies(self) -> tuple[Dependency, ...]:
        uri = f"{HUB_URI}{self.source_repo}"
        files = (
            Dependency(
                file.name,
                f"{uri}/resolve/{self.source_sha}/{file.name}",
                None if file.sha256 is None else Digest("sha256", file.sha256),
                file.nbytes,
            )
            for file in self.source_files
        )
        return (Dependency(self.source_repo, uri, Digest("gitCommit", self.source_sha)), *files)


_INTERNAL = (
    *("origin", "layout", "num_heads", "conventions", "trunk", "licence", "model_facts"),
    *("tensors", "shared"),
)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest `path`, a `provenance.json` or the folder that holds one.

    Raises `FileError` if it cannot be read, `FormatError` naming the key that does not follow the schema.
    """
    path = path / MANIFEST_FILE if path.is_dir() else path
    statement = read_statement(path, {BUILD_TYPE: SCHEMA})
    internal, external = statement.internal, statement.external
    internal.only(("schema", *_INTERNAL))
    repo, sha, source_files = _source(path, statement)
    if external.text("source") != f"{repo}@{sha}":
        raise external.error("source", f"is not {repo}@{sha}, which resolvedDependencies begins with")
    return Manifest(
        source_repo=repo,
        source_sha=sha,
        origin=internal.choice("origin", Origin),
        layout=internal.text("layout"),
        num_heads=internal.integer("num_heads", 1),
        conventions=_conventions(internal.section("conventions")),
        trunk=_trunk(internal.section("trunk")),
        tensors=tuple(_tensor(section) for section in internal.sections("tensors")),
        shared=tuple(_shared(section) for section in internal.sections("shared")),
        licence=_licence(internal.section("licence")),
        files=statement.subjects,
        compared=external.boolean("compare"),
        tool=f"{statement.program} {statement.version}",
        source_files=source_files,
        model_facts=_facts(internal.section("model_facts")),
        layout_asked=external.text("layout") if external.has("layout") else None,
    )


def _source(path: Path, statement: ReadStatement) -> tuple[str, str, tuple[SourceFile, ...]]:
    where = "predicate.buildDefinition.resolvedDependencies"
    if not statement.dependencies:
        raise FormatError(path, where, "is empty")
    repo, *files = statement.dependencies
    if repo.digest is None or repo.digest.algorithm != "gitCommit":
        raise FormatError(path, f"{where}[0]", "must be the source repository with its gitCommit")
    sizes = [file.nbytes for file in files]
    if None in sizes:
        raise FormatError(path, f"{where}[{1 + sizes.index(None)}].annotations", "missing")
    return (
        repo.name,
        repo.digest.value,
        tuple(SourceFile(f.name, f.nbytes or 0, f.digest.value if f.digest else None) for f in files),
    )


def _conventions(section: JsonSection) -> Conventions:
    return Conventions(
        section.number("norm_offset"),
        section.choice("concat_order", ConcatOrder),
        section.choice("hidden_tap", HiddenTap),
        section.choice("chain_tap", ChainTap),
        section.choice("position_rule", PositionRule),
    )


def _trunk(section: JsonSection) -> TrunkFingerprint:
    return TrunkFingerprint(
        section.integer("hidden_size", 1),
        section.integer("vocab_size", 1),
        section.integer("num_layers", 1),
        section.number("rope_theta") if section.has("rope_theta") else None,
    )


def _licence(section: JsonSection) -> Licence:
    if isinstance(section.data.get("id"), list):
        identifier: str | tuple[str, ...] | None = section.texts("id")
    else:
        identifier = _optional(section, "id")
    return Licence(identifier, _optional(section, "name"), _optional(section, "link"))


def _facts(section: JsonSection) -> ModelFacts:
    return ModelFacts(section.text("model_type"), section.texts("architectures"), _optional(section, "quant_method"))


def _tensor(section: JsonSection) -> TensorRecord:
    return TensorRecord(
        section.text("name"),
        section.text("dtype"),
        section.integers("shape"),
        section.integer("nbytes"),
        sha256_of(section),
        tuple(_piece(piece) for piece in section.sections("source")),
        section.text("recipe"),
    )


def _shared(section: JsonSection) -> SharedTensor:
    return SharedTensor(
        section.text("name"),
        section.text("trunk_name"),
        section.integer("nbytes"),
        section.text("compared"),
        _piece(section.section("source")),
        _piece(section.section("trunk")),
    )


def _piece(section: JsonSection) -> SourcePiece:
    begin = section.integer("begin")
    return SourcePiece(
        section.text("role"),
        section.text("name"),
        section.text("file"),
        begin,
        section.integer("end", begin),
        section.text("dtype"),
        section.integers("shape"),
        sha256_of(section),
    )


def _optional(section: JsonSection, key: str) -> str | None:
    return section.text(key) if section.has(key) else None
