"""Who is logged in to the Hub, and whether that login may publish under a name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skulk_core.errors import LoginError, OptionError, PermissionDenied

_WRITING_ROLES = ("admin", "write", "contributor")
_WRITE = "repo.write"


@dataclass(frozen=True)
class Organisation:
    """An organisation of the login. `role` is its role there, empty if the Hub does not say."""

    name: str
    role: str


@dataclass(frozen=True)
class Login:
    """What the Hub says of a login; the token itself is not in it.

    `token_role` is `read`, `write` or `fineGrained`, empty for a login that is no access token. `writable` are the
    names (of a user, an organisation or a repository) that a fine-grained token may write to.
    """

    name: str
    organisations: tuple[Organisation, ...]
    token_role: str
    writable: tuple[str, ...]

    def only_organisation(self) -> str:
        """The one organisation there is. Raises `OptionError` if there is none, or if there are several."""
        names = [organisation.name for organisation in self.organisations]
        if len(names) != 1:
            listed = f"belongs to several: {', '.join(names)}" if names else "belongs to no organisation"
            raise OptionError("--org", "(without a name)", f"the login {self.name} {listed}; name one, or {self.name}")
        return names[0]

    def why_not(self, repo: str) -> str | None:
        """Why this login may not write to `repo`, which need not exist; None if nothing speaks against it."""
        owner = repo.partition("/")[0]
        if self.token_role == "read":
            return f"the token of {self.name} can only read"
        organisation = next((o for o in self.organisations if o.name.lower() == owner.lower()), None)
        if organisation is None and owner.lower() != self.name.lower():
            return f"{self.name} is not a member of {owner}"
        if organisation is not None and organisation.role and organisation.role not in _WRITING_ROLES:
            return f"{self.name} has the role {organisation.role} in {owner}"
        if self.token_role == "fineGrained":
            granted = {name.lower() for name in self.writable}
            if not granted & {owner.lower(), repo.lower()}:
                return f"the fine-grained token of {self.name} does not have {_WRITE} for {owner}"
        return None

    def require(self, repo: str) -> None:
        """Raise `PermissionDenied` if this login may not write to `repo`."""
        if reason := self.why_not(repo):
            raise PermissionDenied(repo, f"write access to repositories of {repo.partition('/')[0]}", reason)


def read_login(answer: object) -> Login:
    """The Hub's answer to "who am I". Raises `LoginError` if it is none."""
    data = _mapping(answer)
    name = data.get("name")
    if not isinstance(name, str) or not name:
        raise LoginError("the Hub", "did not say who is logged in")
    access = _mapping(_mapping(data.get("auth")).get("accessToken"))
    role = access.get("role")
    writable = []
    scoped = _mapping(access.get("fineGrained")).get("scoped")
    for entry in scoped if isinstance(scoped, list) else []:
        entity, permissions = _mapping(_mapping(entry).get("entity")), _mapping(entry).get("permissions")
        if isinstance(permissions, list) and _WRITE in permissions and isinstance(entity.get("name"), str):
            writable.append(str(entity["name"]))
    organisations = []
    orgs = data.get("orgs")
    for org in map(_mapping, orgs if isinstance(orgs, list) else []):
        if isinstance(org.get("name"), str):
            organisations.append(Organisation(str(org["name"]), str(org.get("roleInOrg") or "")))
    return Login(name, tuple(organisations), role if isinstance(role, str) else "", tuple(writable))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
