"""The folder that is locked while it is written: what is there before and after, and who may be in it."""

import os
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from skulk_core.errors import FileError
from swp.out_folder import locked

WAIT_S = 60  # reached only when a test fails


def test_a_folder_that_was_made_here_goes_if_nothing_came_of_it(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "out", None):
        assert (tmp_path / "a" / "out").is_dir()
    assert not (tmp_path / "a" / "out").exists()


def test_an_empty_folder_of_somebody_elses_stays(tmp_path: Path) -> None:
    """`swp verify` of the wrong folder must not remove it."""
    with locked(tmp_path, None):
        pass
    assert tmp_path.is_dir()


def test_who_waits_for_a_folder_that_is_then_removed_makes_it_anew(tmp_path: Path) -> None:
    """Two in one folder would write over each other's files; one in a removed folder would lose them."""
    folder, waiting, first_out, in_it, leave = tmp_path / "out", Event(), Event(), Event(), Event()
    told: list[str] = []

    def wait(what: str, *_: Any) -> None:
        told.append(what)
        waiting.set()

    def second() -> None:
        with locked(folder, wait):
            in_it.set()
            leave.wait(WAIT_S)

    thread = Thread(target=second)
    with locked(folder, None):
        thread.start()
        assert waiting.wait(WAIT_S)
        assert not in_it.is_set()
    assert in_it.wait(WAIT_S)
    assert folder.is_dir()

    third_waits = Event()

    def third() -> None:
        with locked(folder, lambda *_: third_waits.set()):
            first_out.set()

    other = Thread(target=third)
    other.start()
    assert third_waits.wait(WAIT_S)
    assert not first_out.is_set(), "two are in one folder"
    leave.set()
    thread.join(WAIT_S)
    assert first_out.wait(WAIT_S)
    other.join(WAIT_S)
    assert told == ["waiting for another swp, which writes the same folder"]


@pytest.mark.parametrize("moment", ["before it is opened", "once it is locked"])
def test_a_folder_that_vanishes_in_between_is_made_anew(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that ends without a result removes its empty folder at any moment."""
    import fcntl

    folder, real_open, real_flock, removed = tmp_path / "out", os.open, fcntl.flock, []

    def vanish() -> None:
        if not removed:
            removed.append(folder)
            folder.rmdir()

    def opened(path: Any, *rest: Any, **named: Any) -> int:
        if Path(path) == folder and moment == "before it is opened":
            vanish()
        return real_open(path, *rest, **named)

    def locked_then(descriptor: int, operation: int) -> None:
        real_flock(descriptor, operation)
        if moment == "once it is locked":
            vanish()

    monkeypatch.setattr("swp.out_folder.os.open", opened)
    monkeypatch.setattr("swp.out_folder.fcntl.flock", locked_then)
    with locked(folder, None):
        assert removed
        (folder / "kept").write_text("here")
    assert (folder / "kept").read_text() == "here"


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileError, match="cannot be written"), locked(tmp_path / "out", None):
        pass
    assert (tmp_path / "out").read_text() == "mine"
