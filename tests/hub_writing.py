"""The loopback Hub's write side: what the real huggingface_hub client asks for when it publishes, faults on demand.

Repositories have a history; large files go through git-lfs batch, upload and verify, in one piece or in parts. Xet is
not offered: clients run with `HF_HUB_DISABLE_XET=1`. Nothing here knows the code under test.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from hub_loopback import LoopbackHub, Repo, Request
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

TOKEN = "hf_loopbackTokenThatNobodyMaySee"
USER = "ada"
LARGE = (".safetensors", ".bin")
RELATIONS = ("adapter", "merge", "quantized", "finetune")
LICENCES = ("apache-2.0", "mit", "gpl-3.0", "llama3", "other", "unknown", "cc-by-4.0")
VALIDATE = "/api/validate-yaml"

_INITIAL = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass(frozen=True)
class Commit:
    """One commit: all files after it."""

    sha: str
    files: dict[str, bytes]
    parent: str | None
    message: str
    description: str


class WritableRepo(Repo):
    """A repository with commits, the last of which is `main`."""

    def __init__(self, files: dict[str, bytes] | None = None, private: bool = False) -> None:
        super().__init__({})
        self.private = private
        self.commits: list[Commit] = []
        self.commit({**_INITIAL, **(files or {})}, "initial commit")

    def commit(self, files: dict[str, bytes], message: str, description: str = "") -> Commit:
        """Replace all files."""
        parent = self.commits[-1].sha if self.commits else None
        content = "".join(f"{name}\0{hashlib.sha1(files[name]).hexdigest()}\n" for name in sorted(files))
        sha = hashlib.sha1(f"{parent}\n{message}\n{content}".encode()).hexdigest()
        commit = Commit(sha, dict(files), parent, message, description)
        self.commits.append(commit)
        self.files = commit.files
        return commit

    @property
    def sha(self) -> str:
        return self.commits[-1].sha

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch or SHA names."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit.sha == revision), None)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match.

    `status` answers with it; `cut` closes the connection after so many bytes of the request's body; `lost` does what
    was asked and closes the connection instead of answering; `before` is called first, whatever follows.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    cut: int | None = None
    lost: bool = False
    before: Callable[[], object] | None = None
    etag: str | None = None


class WritingHub(LoopbackHub):
    """The server. `repos` holds both plain repositories, for reading, and `WritableRepo`s."""

    def __init__(self) -> None:
        super().__init__()
        self.token = TOKEN
        self.orgs: dict[str, str] = {"org": "admin"}  # name → roleInOrg
        self.role = "write"  # of the token: read, write or fineGrained
        self.scoped: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.store: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_nbytes: int | None = None  # offer uploads in parts of this size
        self.collections: dict[str, dict[str, Any]] = {}
        self.renamed: dict[str, str] = {}  # old name → new
        self.stored_with_token: list[str] = []  # uploads to storage that carried the login's token
        self.bodies: list[bytes] = []

    def make_handler(self) -> type[BaseHTTPRequestHandler]:
        from hub_writing_handler import writing_handler

        return writing_handler(self)

    def repo(self, name: str) -> WritableRepo:
        """A repository that was, or can be, written."""
        repo = self.repos[name]
        assert isinstance(repo, WritableRepo), name
        return repo

    def writes(self) -> list[tuple[str, str]]:
        """Method and path of every request that may have changed something."""
        return [(r.method, r.path) for r in self.requests if r.method in ("POST", "PUT") and r.path != VALIDATE]

    def uploads(self) -> list[Request]:
        """Requests that sent content to the storage."""
        return [r for r in self.requests if r.method == "PUT"]

    def whoami(self) -> dict[str, Any]:
        access: dict[str, Any] = {"displayName": "a token", "role": self.role, "createdAt": "2026-01-01T00:00:00.000Z"}
        if self.role == "fineGrained":
            access["fineGrained"] = {"canReadGatedRepos": True, "global": [], "scoped": self.scoped}
        orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": role} for name, role in self.orgs.items()]
        auth = {"type": "access_token", "accessToken": access}
        return {"type": "user", "id": "1", "name": USER, "fullname": "Ada", "orgs": orgs, "auth": auth}

    def may_write(self, namespace: str) -> bool:
        """Whether the login may create and change repositories there."""
        if self.role == "read":
            return False
        if self.role == "fineGrained" and not any(
            entry["entity"].get("name") == namespace and "repo.write" in entry["permissions"] for entry in self.scoped
        ):
            return False
        return namespace == USER or self.orgs.get(namespace) in ("admin", "write", "contributor")


def git_blob_id(content: bytes) -> str:
    """The object id git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def card_problems(content: str) -> list[str]:
    """What the Hub's own check would say against a README's front matter, as far as its documentation tells."""
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", content, re.DOTALL)
    if match is None:
        return ["no front matter"]
    try:
        data = YAML(typ="safe", pure=True).load(match[1])
    except YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(data, dict):
        return ["not a mapping"]
    problems = []
    licences = data.get("license")
    for licence in licences if isinstance(licences, list) else [licences]:
        if licence not in LICENCES:
            problems.append(f'"license" must be one of {LICENCES}')
    if data.get("license") == "other" and not data.get("license_name"):
        problems.append('"license_name" is required')
    if data.get("base_model_relation") not in (None, *RELATIONS):
        problems.append(f'"base_model_relation" must be one of {RELATIONS}')
    bases = data.get("base_model", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(base)):
            problems.append('"base_model" must be a model id')
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        problems.append('"tags" must be texts')
    return problems
