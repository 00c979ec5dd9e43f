"""How the loopback Hub answers requests that write: the routes of `hub_writing.WritingHub`."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_loopback import Repo, Request, _handler
from hub_writing import LARGE, USER, VALIDATE, Commit, WritableRepo, WritingHub, card_problems, git_blob_id

_COMMIT = re.compile(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)")
_PREUPLOAD = re.compile(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)")
_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_VERIFY = re.compile(r"/lfs-verify/([^/]+/[^/]+)")
_STORE = re.compile(r"/store/([0-9a-f]{64})")
_PART = re.compile(r"/store/([0-9a-f]{64})/part/(\d+)")
_COMPLETE = re.compile(r"/store/([0-9a-f]{64})/complete")
_COLLECTION = re.compile(r"/api/collections/([^/]+/[^/]+)")
_ITEMS = re.compile(r"/api/collections/([^/]+/[^/]+)/items")
_INFO = re.compile(r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/]+))?")
_TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)")


class _View(Repo):
    """An old commit, as the reading half of the Hub serves it."""

    def __init__(self, repo: WritableRepo, commit: Commit) -> None:
        super().__init__(commit.files, repo.card)
        self._commit = commit

    @property
    def sha(self) -> str:
        return self._commit.sha


def writing_handler(hub: WritingHub) -> type[BaseHTTPRequestHandler]:
    """The answers of `hub`."""
    reading: Any = _handler(hub)

    class Handler(reading):  # type: ignore[misc]
        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = urlsplit(self.path).path
            self._lost = False
            fault = next((f for f in hub.faults if f.method == self.command and re.fullmatch(f.path, path)), None)
            if fault is not None:
                fault.times -= 1
                if not fault.times:
                    hub.faults.remove(fault)
                if fault.before:
                    fault.before()
                if fault.cut is not None:
                    hub.requests.append(Request(self.command, path, None))
                    self.rfile.read(fault.cut)
                    return self._reset()
            self._body_in = self._read_body()
            hub.bodies.append(self._body_in)
            if fault is not None and fault.status is not None:
                hub.requests.append(Request(self.command, path, self.headers.get("Range")))
                return self._error(fault.status, fault.code, "out of order", fault.headers)
            self._lost = fault is not None and fault.lost
            self._etag = fault.etag if fault is not None else None
            authorized = self.headers.get("Authorization") == f"Bearer {hub.token}"
            if path.startswith("/store/"):
                if self.headers.get("Authorization"):
                    hub.stored_with_token.append(path)
            elif self.headers.get("Authorization") and not authorized:
                hub.requests.append(Request(self.command, path, None))
                return self._error(401, "", "Invalid credentials in Authorization header")
            if self._write(path, authorized):
                return None
            return super()._answer()

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while nbytes := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(nbytes))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _write(self, path: str, authorized: bool) -> bool:
            """Answer what the reading half does not know; False for the rest."""
            routes: tuple[tuple[str, re.Pattern[str] | str, Callable[..., None]], ...] = (
                ("GET", "/api/whoami-v2", self._whoami),
                ("POST", "/api/repos/create", self._create),
                ("POST", VALIDATE, self._validate),
                ("POST", _PREUPLOAD, self._preupload),
                ("POST", _COMMIT, self._commit),
                ("POST", _BATCH, self._batch),
                ("POST", _VERIFY, self._verify),
                ("PUT", _PART, self._put_part),
                ("POST", _COMPLETE, self._complete),
                ("PUT", _STORE, self._put),
                ("GET", "/api/collections", self._list_collections),
                ("POST", "/api/collections", self._create_collection),
                ("POST", _ITEMS, self._add_item),
                ("GET", _COLLECTION, self._get_collection),
                ("GET", _TREE, self._tree),
                ("GET", _INFO, self._info),
            )
            for method, pattern, answer in routes:
                match = re.fullmatch(pattern, path)
                if method != self.command or match is None:
                    continue
                if pattern in (_TREE, _INFO) and not isinstance(hub.repos.get(match[1]), WritableRepo):
                    return False
                hub.requests.append(Request(self.command, path, None))
                open_to_all = pattern in (VALIDATE, _TREE, _INFO, _STORE, _PART, _COMPLETE)
                if not authorized and not open_to_all:
                    self._error(401, "", "Invalid username or password.")
                else:
                    answer(*(unquote(group or "main") for group in match.groups()))
                return True
            return False

        # a repository's older commits, for the reading half

        def _repo(self, name: str, revision: str) -> Repo | None:
            repo = hub.repos.get(name)
            if isinstance(repo, WritableRepo) and (commit := repo.at(revision)):
                return _View(repo, commit)
            found: Repo | None = super()._repo(name, revision)
            return found

        def _writable(self, name: str) -> WritableRepo | None:
            repo = hub.repos.get(name)
            if not isinstance(repo, WritableRepo):
                self._error(404, "RepoNotFound", "Repository not found")
                return None
            if not hub.may_write(name.partition("/")[0]):
                self._error(403, "", "You don't have the rights to change this repository")
                return None
            return repo

        def _whoami(self) -> None:
            self._json(hub.whoami())

        def _create(self) -> None:
            asked = json.loads(self._body_in)
            namespace = asked.get("organization") or USER
            name = f"{namespace}/{asked['name']}"
            if not hub.may_write(namespace):
                return self._error(403, "", "You don't have the rights to create a model under this namespace")
            if name in hub.repos:
                return self._error(409, "", "You already created this model repo")
            hub.repos[name] = WritableRepo(private=asked.get("visibility") == "private")
            return self._json({"url": f"{hub.url}/{name}", "name": name})

        def _validate(self) -> None:
            problems = card_problems(json.loads(self._body_in)["content"])
            body = json.dumps({"errors": [{"message": p} for p in problems], "warnings": []}).encode()
            self._send(400 if problems else 200, body, {"Content-Type": "application/json"})

        def _info(self, name: str, revision: str) -> None:
            if (repo := self._repo(name, revision)) is None:
                return None
            listed = {
                "id": hub.renamed.get(name, name),
                "sha": repo.sha,
                "private": hub.repo(name).private,
                "cardData": repo.card or None,
            }
            return self._json({**listed, "siblings": [{"rfilename": file} for file in repo.files]})

        def _tree(self, name: str, revision: str) -> None:
            if (repo := self._repo(name, revision)) is None:
                return None
            listing = []
            for path, content in sorted(repo.files.items()):
                entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
                entry["oid"] = git_blob_id(content)
                if path.endswith(LARGE):
                    sha256 = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
                    entry["oid"] = git_blob_id(b"pointer to " + sha256.encode())
                listing.append(entry)
            return self._json(listing)

        def _preupload(self, name: str, revision: str) -> None:
            if (repo := self._writable(name)) is None:
                return None
            answers = []
            for file in json.loads(self._body_in)["files"]:
                path, content = file["path"], repo.files.get(file["path"])
                large = path.endswith(LARGE)
                oid = None
                if content is not None:
                    oid = hashlib.sha256(content).hexdigest() if large else git_blob_id(content)
                mode = "lfs" if large else "regular"
                answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            return self._json({"files": answers, "commitOid": repo.sha})

        def _batch(self, name: str) -> None:
            if self._writable(name) is None:
                return None
            objects = []
            for wanted in json.loads(self._body_in)["objects"]:
                oid, nbytes = wanted["oid"], wanted["size"]
                answer: dict[str, Any] = {"oid": oid, "size": nbytes}
                if oid not in hub.store:
                    upload: dict[str, Any] = {"href": f"{hub.url}/store/{oid}"}
                    if hub.part_nbytes is not None and nbytes > hub.part_nbytes:
                        count = -(-nbytes // hub.part_nbytes)
                        urls = {f"{n:05}": f"{hub.url}/store/{oid}/part/{n}" for n in range(1, count + 1)}
                        upload = {"href": f"{hub.url}/store/{oid}/complete"}
                        upload["header"] = {"chunk_size": str(hub.part_nbytes), **urls}
                    answer["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/lfs-verify/{name}"}}
                objects.append(answer)
            return self._json({"transfer": "basic", "objects": objects})

        def _put(self, oid: str) -> None:
            hub.store[oid] = self._body_in
            self._send(200, b"", {"ETag": f'"{hashlib.md5(self._body_in).hexdigest()}"'})

        def _put_part(self, oid: str, number: str) -> None:
            hub.parts.setdefault(oid, {})[int(number)] = self._body_in
            etag = hashlib.md5(self._body_in).hexdigest() if self._etag is None else self._etag
            self._send(200, b"", {"ETag": f'"{etag}"'} if etag else {})

        def _complete(self, oid: str) -> None:
            said = {part["partNumber"]: part["etag"].strip('"') for part in json.loads(self._body_in)["parts"]}
            have = hub.parts.get(oid, {})
            if said != {number: hashlib.md5(content).hexdigest() for number, content in have.items()}:
                return self._error(400, "", "One or more of the specified parts could not be found")
            hub.store[oid] = b"".join(have[number] for number in sorted(have))
            return self._json({})

        def _verify(self, name: str) -> None:
            asked = json.loads(self._body_in)
            content = hub.store.get(asked["oid"], b"")
            if hashlib.sha256(content).hexdigest() != asked["oid"]:
                hub.store.pop(asked["oid"], None)
                return self._error(422, "", "the object does not have the digest it was uploaded under")
            return self._json({})

        def _commit(self, name: str, revision: str) -> None:
            if (repo := self._writable(name)) is None:
                return None
            lines = [json.loads(line) for line in self._body_in.splitlines() if line]
            header = lines[0]["value"]
            if header.get("parentCommit") not in (None, repo.sha):
                return self._error(412, "", "A commit has happened since. Please refresh and try again.")
            files = dict(repo.files)
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    if value["oid"] not in hub.store:
                        return self._error(400, "", "LFS pointer pointed to a file that does not exist")
                    files[value["path"]] = hub.store[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    return self._error(400, "", f"unknown operation {line['key']}")
            commit = repo.commit(files, header["summary"], header["description"])
            url = f"{hub.url}/{name}/commit/{commit.sha}"
            return self._json({"commitUrl": url, "commitOid": commit.sha, "success": True, "hookOutput": ""})

        def _list_collections(self) -> None:
            owner = parse_qs(urlsplit(self.path).query).get("owner", [None])[0]
            found = [c for c in hub.collections.values() if owner in (None, c["owner"]["name"])]
            listed = [{key: value for key, value in c.items() if key != "position"} for c in found]
            self._json([{**c, "items": c["items"][:4]} for c in listed])

        def _create_collection(self) -> None:
            asked = json.loads(self._body_in)
            if not hub.may_write(asked["namespace"]):
                return self._error(403, "", "You may not create collections there")
            slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-64f9a55bb3115b4f513ec026"
            if slug in hub.collections:
                body = json.dumps({"error": "This collection already exists", "slug": slug}).encode()
                return self._send(409, body, {"Content-Type": "application/json"})
            hub.collections[slug] = {
                "slug": slug,
                "title": asked["title"],
                "owner": {"name": asked["namespace"], "type": "org"},
                "items": [],
                "lastUpdated": "2026-01-01T00:00:00.000Z",
                "position": 0,
                "private": asked.get("private", False),
                "theme": "green",
                "upvotes": 0,
            }
            return self._json(hub.collections[slug])

        def _get_collection(self, slug: str) -> None:
            if slug not in hub.collections:
                return self._error(404, "", "no such collection")
            return self._json(hub.collections[slug])

        def _add_item(self, slug: str) -> None:
            if slug not in hub.collections:
                return self._error(404, "", "no such collection")
            item = json.loads(self._body_in)["item"]
            items = hub.collections[slug]["items"]
            if any(known["id"] == item["id"] for known in items):
                return self._error(409, "", "Already in this collection")
            items.append({"_id": str(len(items)), "id": item["id"], "type": item["type"], "position": len(items)})
            return self._json(hub.collections[slug])

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            if self._lost:
                return self._reset()
            return super()._send(status, content, headers)  # type: ignore[no-any-return]

    return Handler
