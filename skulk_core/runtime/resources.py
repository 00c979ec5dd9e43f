"""Where the files that come with the program are: at the top of a checkout, or inside an installed wheel.

In a wheel everything is under `skulk_core/_data/`. That place is looked at first: beside an installed package the names
`catalog.yaml` and `templates` may belong to somebody else.
"""

from pathlib import Path

from skulk_core.errors import FileError

_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = _PACKAGE / "_data"
_CHECKOUT = _PACKAGE.parent


def catalog_path() -> Path:
    """The shipped `catalog.yaml`. Raises `FileError` if the installation lacks it."""
    return _find("catalog.yaml")


def templates_folder() -> Path:
    """The folder of Jinja templates. Raises `FileError` if the installation lacks it."""
    return _find("templates")


def demo_folder() -> Path:
    """The demo model's checkpoint. Raises `FileError` if the installation lacks it."""
    return _existing(_INSTALLED / "demo")


def demo_sidecar() -> Path:
    """The demo model's sidecar file. Raises `FileError` if the installation lacks it."""
    return _existing(_INSTALLED / "demo-sidecar" / "mtp.safetensors")


def prompts_folder() -> Path:
    """The prompts that benchmarks decode from. Raises `FileError` if the installation lacks it."""
    return _existing(_INSTALLED / "prompts")


def _find(name: str) -> Path:
    installed = _INSTALLED / name
    return installed if installed.exists() else _existing(_CHECKOUT / name)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileError(path, "missing from this installation")
    return path
