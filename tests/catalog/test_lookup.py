"""The shipped catalog and a person's own as one."""

from pathlib import Path

import pytest

from skulk_core.catalog import Catalog, SidecarEntry
from skulk_core.errors import FormatError


def catalog_file(path: Path, *pairs: tuple[str, str], kind: str = "sidecar", more: str = "layout: x") -> Path:
    entries = [f"- {{kind: {kind}, base: {base}, repo: {repo}, licence: mit, {more}}}\n" for base, repo in pairs]
    path.write_text("schema: 1\nentries:\n" + "".join(entries))
    return path


def test_the_users_entry_wins(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A-Base", "fox/a"), ("Qwen/B", "fox/b"))
    user = catalog_file(tmp_path / "b.yaml", ("qwen/a-base", "me/a"))
    catalog = Catalog.load(shipped, user)
    assert [(entry.repo, entry.origin) for entry in catalog.sidecars] == [("me/a", user), ("fox/b", shipped)]


def test_an_assistant_does_not_replace_a_sidecar(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"))
    user = catalog_file(tmp_path / "b.yaml", ("Qwen/A", "me/a"), kind="assistant")
    catalog = Catalog.load(shipped, user)
    assert [entry.repo for entry in catalog.sidecars] == ["fox/a"]
    assert [entry.repo for entry in catalog.assistants] == ["me/a"]


def test_a_slice_does_not_replace_the_whole_vindex(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/whole"), kind="vindex", more="quant: q4k")
    user = catalog_file(tmp_path / "b.yaml", ("Qwen/A", "me/s"), kind="vindex", more="quant: q4k, slice: expert-server")
    assert [entry.repo for entry in Catalog.load(shipped, user).vindexes] == ["me/s", "fox/whole"]
    user = catalog_file(tmp_path / "b.yaml", ("Qwen/A", "me/whole"), kind="vindex", more="quant: q4k")
    assert [entry.repo for entry in Catalog.load(shipped, user).vindexes] == ["me/whole"]


def test_an_entry_is_found_by_either_of_its_names(tmp_path: Path) -> None:
    catalog = Catalog.load(catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"), ("Qwen/B", "fox/b")), None)
    assert [entry.repo for entry in catalog.named("qwen/a")] == ["fox/a"]
    assert [entry.base for entry in catalog.named("Fox/A")] == ["Qwen/A"]
    assert catalog.named("Qwen/C") == ()
    assert isinstance(entry := catalog.entry_of("FOX/b"), SidecarEntry)
    assert entry.base == "Qwen/B"
    assert catalog.entry_of("Qwen/B") is None


def test_a_user_catalog_need_not_exist(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"))
    assert Catalog.load(shipped, tmp_path / "nope.yaml") == Catalog.load(shipped, None)


def test_a_mistake_in_the_users_catalog_is_told_not_skipped(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"))
    user = tmp_path / "b.yaml"
    user.write_text("schema: 1\nentries:\n- {kind: sidecar, base: me/A, rep: me/a}\n")
    with pytest.raises(FormatError, match=r"line 3, entries\[0\]\.rep: unknown key \(did you mean 'repo'\?\)"):
        Catalog.load(shipped, user)
