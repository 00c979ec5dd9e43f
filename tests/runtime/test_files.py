"""Where the program's files and the user's files are."""

import stat
from pathlib import Path

import pytest

from skulk_core.errors import FileError
from skulk_core.runtime import resources
from skulk_core.runtime.userfiles import config_dir, write_atomically


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package beside strangers' files of the same names."""
    data = tmp_path / "site-packages" / "skulk_core" / "_data"
    for folder in (data / "templates", data / "demo", data / "demo-sidecar", data.parent.parent / "templates"):
        folder.mkdir(parents=True)
    for file in (data / "catalog.yaml", data / "demo-sidecar" / "mtp.safetensors", data.parent.parent / "catalog.yaml"):
        file.touch()
    monkeypatch.setattr(resources, "_INSTALLED", data)
    monkeypatch.setattr(resources, "_CHECKOUT", data.parent.parent)
    return data


def test_a_checkout_has_its_files_at_the_top() -> None:
    root = Path(__file__).resolve().parents[2]
    assert resources.catalog_path() == root / "catalog.yaml"


def test_an_installation_uses_its_own_files(installation: Path) -> None:
    assert resources.catalog_path() == installation / "catalog.yaml"
    assert resources.templates_folder() == installation / "templates"
    assert resources.demo_folder() == installation / "demo"
    assert resources.demo_sidecar() == installation / "demo-sidecar" / "mtp.safetensors"


def test_a_broken_installation_says_what_it_lacks(installation: Path) -> None:
    (installation / "demo").rmdir()
    with pytest.raises(FileError, match="missing from this installation") as caught:
        resources.demo_folder()
    assert caught.value.path == installation / "demo"


def test_the_folder_of_user_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/mine")
    assert config_dir() == Path("/etc/mine/skulk")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config_dir() == tmp_path / ".config" / "skulk"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_dir() == tmp_path / ".config" / "skulk"


def test_a_file_is_written_into_a_folder_that_did_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "hosts.yaml"
    write_atomically(path, "größe: 1\n")
    assert path.read_text(encoding="utf-8") == "größe: 1\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["hosts.yaml"]


def test_a_replaced_file_keeps_its_permissions_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.yaml", tmp_path / "hosts.yaml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "hosts.yaml"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["hosts.yaml"]
