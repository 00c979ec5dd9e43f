"""The command line as a receipt has it: what was measured, without what names a person, a host or a folder."""

import os
import shlex
from collections.abc import Sequence

from skulk_core.hub.refs import DEMO

PATH, HOST, LINK = "PATH", "HOST", "LINK"
FLAGS = {
    *("--suite", "--save-depth", "--certify", "--no-certify", "--raw", "--push", "--allow-public-link"),
    *("--json", "--quiet", "-q", "--verbose", "-v"),
}
_HERE = "local"
_ALWAYS_PATHS = ("--out", "--against-draft")


def recorded_command(arguments: Sequence[str]) -> str:
    """``arguments`` of `skulk` as one line: peers are counted by `HOST`, links and paths said to be such."""
    # the command's own name comes first
    said, option = ["skulk", *arguments[:1]], ""
    for argument in arguments[1:]:
        name, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            said.append(f"{name}={_neutral(name, value)}")
            option = ""
        elif argument.startswith("-"):
            said.append(argument)
            option = "" if argument in FLAGS else argument
        else:
            said.append(_neutral(option, argument))
            option = ""
    return shlex.join(said)


def _neutral(option: str, value: str) -> str:
    """The value of ``option``, or of none, where it names nobody."""
    match option:
        case "--peers":
            # processes of this machine are nobody's
            peers = value.split(",") if value else []
            return ",".join(one if one.partition(":")[0] == _HERE else HOST for one in peers)
        case "--link":
            return LINK
        case "--prompts":
            from skulk_core.bench.prompts import SETS

            return value if value in SETS else PATH
        case "" | "--sidecar":
            return PATH if value != DEMO and (_is_written_as_path(value) or _exists(value)) else value
    return PATH if option in _ALWAYS_PATHS or _is_written_as_path(value) else value


def _is_written_as_path(text: str) -> bool:
    return text.startswith(("/", "~", ".")) or text.count("/") > 1


def _exists(text: str) -> bool:
    """OWNER/NAME is a path where there is such a folder."""
    return os.path.lexists(os.path.expanduser(text))
