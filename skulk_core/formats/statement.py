"""The in-toto statement around every manifest of ours: which files there are, and what they were made from.

    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": FILE, "digest": {"sha256": HEX}, "annotations": {"nbytes": N}}, ...],
     "predicateType": "https://slsa.dev/provenance/v1",
     "predicate": {
       "buildDefinition": {"buildType": URI, "externalParameters": {...}, "internalParameters": {"schema": 1, ...},
                           "resolvedDependencies": [{"name", "uri", "digest", "annotations"}, ...]},
       "runDetails": {"builder": {"id": URI, "version": {PROGRAM: VERSION}}}}}

What the two parameter objects hold is the affair of the manifest (`provenance.py`). A statement has no time and nothing
of the machine it was made on: making it again gives the same bytes. Keys of in-toto and SLSA that are not ours are
ignored, as those specifications ask.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from skulk_core.errors import FileError, FormatError, OtherManifest
from skulk_core.formats.json_file import JsonSection, read_json

MANIFEST_FILE = "provenance.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILDER = "urn:skulk-mtp:swp"

_HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "gitCommit": re.compile(r"[0-9a-f]{40}")}
_CHUNK_NBYTES = 1 << 20


@dataclass(frozen=True)
class Digest:
    """A digest with its algorithm, `sha256` or `gitCommit`. `str()` is `ALGORITHM:HEX`, the digits in lower case."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @property
    def is_valid(self) -> bool:
        """Whether `value` is what digests of this algorithm look like."""
        return self.algorithm in _HEX and _HEX[self.algorithm].fullmatch(self.value) is not None


@dataclass(frozen=True)
class FileRecord:
    """A file of the folder: its path from there with forward slashes, its size, sha256 in hexadecimal digits."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Dependency:
    """Something the files were made from. `digest` is None where nobody stated one, `nbytes` where it has no size."""

    name: str
    uri: str
    digest: Digest | None = None
    nbytes: int | None = None


@dataclass(frozen=True)
class Statement:
    """One statement. `external` are the parameters that were asked for, `internal` those that the program settled."""

    build_type: str
    subjects: tuple[FileRecord, ...]
    external: Mapping[str, Any]
    internal: Mapping[str, Any]
    dependencies: tuple[Dependency, ...]
    program: str
    version: str

    def to_json(self) -> str:
        """The statement as text, the same for the same values, with a line break at its end."""
        content = {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": f.name, "digest": {"sha256": f.sha256}, "annotations": {"nbytes": f.nbytes}}
                for f in self.subjects
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": self.build_type,
                    "externalParameters": self.external,
                    "internalParameters": self.internal,
                    "resolvedDependencies": [_described(dependency) for dependency in self.dependencies],
                },
                "runDetails": {"builder": {"id": BUILDER, "version": {self.program: self.version}}},
            },
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class ReadStatement:
    """A statement that was read; the parameters are still to be read key by key, from the sections given."""

    build_type: str
    subjects: tuple[FileRecord, ...]
    external: JsonSection
    internal: JsonSection
    dependencies: tuple[Dependency, ...]
    program: str
    version: str


def read_statement(path: Path, schemas: Mapping[str, int]) -> ReadStatement:
    """Read the statement in the file `path`. `schemas` are the build types known, with the schema of each.

    Raises `FileError` if the file cannot be read, `FormatError` naming the key that is not as this page says, or that a
    newer program wrote.
    """
    top = read_json(path)
    _require(top, "_type", STATEMENT_TYPE)
    _require(top, "predicateType", PREDICATE_TYPE)
    predicate = top.section("predicate")
    definition = predicate.section("buildDefinition")
    build_type = definition.text("buildType")
    if build_type not in schemas:
        wrong = definition.error("buildType", f"{build_type!r} is not one of {', '.join(schemas)}")
        raise OtherManifest(wrong.path, wrong.where, wrong.reason.removeprefix(f"{wrong.where}: "))
    internal = definition.section("internalParameters")
    if (schema := internal.integer("schema", 1)) != schemas[build_type]:
        raise internal.error("schema", f"is {schema}; this program reads schema {schemas[build_type]}")
    versions = predicate.section("runDetails").section("builder").section("version")
    if len(versions.data) != 1:
        raise FormatError(path, versions.trail, "must name one program")
    program = next(iter(versions.data))
    return ReadStatement(
        build_type,
        tuple(_subject(section) for section in top.sections("subject")),
        definition.section("externalParameters"),
        internal,
        tuple(_dependency(section) for section in definition.sections("resolvedDependencies")),
        program,
        versions.text(program),
    )


def sha256_of(section: JsonSection, key: str = "sha256") -> str:
    """A sha256 in 64 lower-case hexadecimal digits. Raises `FormatError`."""
    value = section.text(key)
    if not Digest("sha256", value).is_valid:
        raise section.error(key, f"{value!r} is not 64 hexadecimal digits")
    return value


def record_file(folder: Path, name: str) -> FileRecord:
    """Size and digest of the file `name` in `folder`, read in pieces. Raises `FileError`."""
    digest, nbytes = hashlib.sha256(), 0
    try:
        with (folder / name).open("rb") as stream:
            while chunk := stream.read(_CHUNK_NBYTES):
                digest.update(chunk)
                nbytes += len(chunk)
    except OSError as error:
        raise FileError(folder / name, f"cannot be read: {error.strerror or error}") from error
    return FileRecord(name, nbytes, digest.hexdigest())


def _described(dependency: Dependency) -> dict[str, Any]:
    described: dict[str, Any] = {"name": dependency.name, "uri": dependency.uri}
    if dependency.digest is not None:
        described["digest"] = {dependency.digest.algorithm: dependency.digest.value}
    if dependency.nbytes is not None:
        described["annotations"] = {"nbytes": dependency.nbytes}
    return described


def _subject(section: JsonSection) -> FileRecord:
    name = section.text("name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
        raise section.error("name", f"{name!r} is not the path of a file in this folder")
    nbytes = section.section("annotations").integer("nbytes")
    return FileRecord(name, nbytes, sha256_of(section.section("digest")))


def _dependency(section: JsonSection) -> Dependency:
    digest = None
    if section.has("digest"):
        known = [Digest(algorithm, str(value)) for algorithm, value in section.section("digest").data.items()]
        digest = next((one for one in known if one.is_valid), None)
        if digest is None:
            raise section.error("digest", f"has none of {', '.join(_HEX)}")
    nbytes = section.section("annotations").integer("nbytes") if section.has("annotations") else None
    return Dependency(section.text("name"), section.text("uri"), digest, nbytes)


def _require(section: JsonSection, key: str, expected: str) -> None:
    if (value := section.text(key)) != expected:
        raise section.error(key, f"{value!r} is not {expected}")
