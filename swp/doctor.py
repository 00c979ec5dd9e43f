"""What a publisher needs: a login that may write, room on disk, the right packages. Looks; changes nothing."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import constants, get_token

from skulk_core.errors import FileError, OptionError, SkulkError
from skulk_core.runtime.device import versions
from skulk_core.runtime.packages import PUBLISH, pip_command
from skulk_core.runtime.resources import catalog_path, templates_folder
from skulk_core.types import Finding, Report
from swp.hub_write import HubWriter
from swp.login import Login

_NEEDED_NBYTES = 30 * 10**9  # the largest heads known: their parts in the cache, and the sidecar made of them
_EXAMPLE = "sidecar"
_INSTALL_TORCH = f"{pip_command(PUBLISH)} (without it only heads that are not quantised can be extracted)"


def examine(writer: HubWriter, org: str | None, folder: Path) -> Report:
    """Look at the login, at its rights in `org` (empty: its only organisation), and at disk and packages here.

    `folder` is where sidecars would be written. Never raises for what is missing: that is what the report is for.
    """
    login, token = _login(writer)
    findings = [Finding("endpoint", writer.endpoint, True), token]
    if login is not None:
        findings.append(_organisations(login))
        if org is not None:
            findings.append(_permission(login, org))
    disks = {path: name for name, path in (("disk: cache", Path(constants.HF_HUB_CACHE)), ("disk: here", folder))}
    findings += [_disk(name, path) for path, name in disks.items()]
    return Report((*findings, *_versions(), _torch(), _files()))


def _login(writer: HubWriter) -> tuple[Login | None, Finding]:
    """Who is logged in. The token is only asked whether it is there; it is never read into a text."""
    if get_token() is None:
        return None, Finding("login", "none", False, "hf auth login, or set HF_TOKEN")
    try:
        login = writer.login("the Hub")
    except SkulkError as error:
        return None, Finding("login", str(error), False, "hf auth login --force, or set HF_TOKEN to a valid token")
    role = {"fineGrained": "fine-grained"}.get(login.token_role, login.token_role) or "unknown"
    if login.token_role == "read":
        advice = "publishing needs a token that can write: huggingface.co/settings/tokens"
        return login, Finding("login", f"{login.name}, token: read", False, advice)
    return login, Finding("login", f"{login.name}, token: {role}", True)


def _organisations(login: Login) -> Finding:
    named = [f"{one.name} ({one.role or 'role unknown'})" for one in login.organisations]
    return Finding("organisations", ", ".join(named) or "none", True)


def _permission(login: Login, org: str) -> Finding:
    try:
        owner = org or login.only_organisation()
    except OptionError as error:
        return Finding("may publish", error.reason, False, "name the organisation: --org ORG")
    if reason := login.why_not(f"{owner}/{_EXAMPLE}"):
        return Finding(
            "may publish", f"not to {owner}: {reason}", False, "another token, another role, or another --org"
        )
    return Finding("may publish", f"to {owner}", True)


def _disk(name: str, path: Path) -> Finding:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    value = f"{free / 1e9:.1f} GB free in {path}"
    if free >= _NEEDED_NBYTES:
        return Finding(name, value, True)
    return Finding(name, value, True, "enough for most heads; the largest need up to 30 GB")


def _versions() -> list[Finding]:
    wanted = ("python", "skulk-mtp", "huggingface-hub")
    return [
        Finding(name, version or "not installed: run from a checkout", True)
        for name, version in versions().items()
        if name in wanted
    ]


def _torch() -> Finding:
    if find_spec("torch") is None:
        return Finding("torch", "not installed", True, _INSTALL_TORCH)
    from importlib.metadata import version

    return Finding("torch", version("torch"), True)


def _files() -> Finding:
    try:
        templates_folder(), catalog_path()
    except FileError as error:
        return Finding("installation", str(error), False, "install it again")
    return Finding("installation", "complete", True)
