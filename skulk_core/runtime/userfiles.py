"""Files of the person who runs the program: where they are and how they are written."""

import os
import tempfile
from pathlib import Path

from skulk_core.errors import FileError


def config_dir() -> Path:
    """`$XDG_CONFIG_HOME/skulk`, or `~/.config/skulk`, on macOS too. It may not exist yet.

    A relative `XDG_CONFIG_HOME` is ignored, as the XDG base directory specification asks.
    """
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".config"
    return base / "skulk"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/skulk`, or `~/.cache/skulk`: what can be made again. It may not exist yet."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "skulk"


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 so that a reader sees the old file or the new one, never a part.

    Missing folders are created. An existing file keeps its permissions, a new one is its owner's alone; a symbolic link
    stays and the file it points to is replaced. Raises `FileError`, after which the old file is as it was.
    """
    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                if target.exists():
                    os.fchmod(stream.fileno(), target.stat().st_mode & 0o7777)
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror or error}") from error
