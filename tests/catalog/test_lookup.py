"""From a model's names to its head."""

from pathlib import Path

import pytest

from skulk_core.catalog import Because, Catalog, Found, NotFound, Rule
from skulk_core.catalog.names import core_name
from skulk_core.errors import FormatError


def catalog_file(path: Path, *pairs: tuple[str, str], kind: str = "sidecar") -> Path:
    entries = [f"- {{kind: {kind}, base: {base}, repo: {repo}, layout: x, licence: mit}}\n" for base, repo in pairs]
    path.write_text("schema: 1\nentries:\n" + "".join(entries))
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    shipped = catalog_file(
        tmp_path / "shipped.yaml",
        ("Qwen/Qwen3.5-9B-Base", "fox/qwen3-5-9b-base-mtp"),
        ("Qwen/Qwen3.5-27B", "fox/qwen3-5-27b-mtp"),
        ("nvidia/Super-120B-BF16", "fox/super-120b-bf16-mtp"),
        ("deepseek-ai/DeepSeek-V4", "fox/deepseek-v4-mtp"),
        ("Qwen/Next-80B-Instruct", "fox/next-80b-instruct-mtp"),
        ("Qwen/Next-80B-Thinking", "fox/next-80b-thinking-mtp"),
    )
    return Catalog.load(shipped, None)


def found(catalog: Catalog, *names: str) -> tuple[str, Because]:
    result = catalog.find_sidecar(names)
    assert isinstance(result, Found), result
    return result.entry.base, result.because


def test_a_model_that_is_listed(catalog: Catalog) -> None:
    base, because = found(catalog, "qwen/qwen3.5-27b")
    assert base == "Qwen/Qwen3.5-27B"
    assert because.rule is Rule.LISTED
    assert str(because) == "the catalog lists Qwen/Qwen3.5-27B"


def test_a_model_whose_base_is_listed(catalog: Catalog) -> None:
    base, because = found(catalog, "me/mine-4bit", "me/mine", "Qwen/Qwen3.5-27B")
    assert base == "Qwen/Qwen3.5-27B"
    assert because == Because(Rule.BASE_MODEL, "Qwen/Qwen3.5-27B", "Qwen/Qwen3.5-27B")
    assert str(because) == "its base model is Qwen/Qwen3.5-27B"


def test_a_stated_base_is_preferred_to_a_likeness(catalog: Catalog) -> None:
    base, because = found(catalog, "me/Qwen3.5-27B-4bit", "Qwen/Qwen3.5-9B-Base")
    assert base == "Qwen/Qwen3.5-9B-Base"
    assert because.rule is Rule.BASE_MODEL


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("mlx-community/Qwen3.5-27B-4bit", "Qwen/Qwen3.5-27B"),
        ("mlx-community/Qwen3.5-27B-MLX-8bit", "Qwen/Qwen3.5-27B"),
        ("mlx-community/qwen3.5-27b-mlx-4bit-gs32", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-AWQ", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-GPTQ-Int4", "Qwen/Qwen3.5-27B"),
        ("Qwen/Qwen3.5-27B-FP8", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-heretic-v2-mxfp4", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B_abliterated", "Qwen/Qwen3.5-27B"),
        ("Qwen/Qwen3.5-9B", "Qwen/Qwen3.5-9B-Base"),
        ("mlx-community/Qwen3.5-9B-bf16", "Qwen/Qwen3.5-9B-Base"),
        ("mlx-community/Super-120B-4bit", "nvidia/Super-120B-BF16"),
        ("mlx-community/DeepSeek-V4-4bit", "deepseek-ai/DeepSeek-V4"),
        ("mlx-community/Next-80B-Thinking-4bit", "Qwen/Next-80B-Thinking"),
        ("Qwen3.5-27B-4bit", "Qwen/Qwen3.5-27B"),
        ("/models/Qwen3.5-27B-4bit/", "Qwen/Qwen3.5-27B"),
    ],
)
def test_a_name_is_matched_without_its_suffixes(catalog: Catalog, name: str, base: str) -> None:
    assert found(catalog, name) == (base, Because(Rule.NAME, name, base))


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3.5-7B",
        "Qwen/Qwen3.5-127B-4bit",
        "Qwen/Next-80B-4bit",
        "deepseek-ai/DeepSeek-V3",
        "deepseek-ai/DeepSeek",
        "Qwen/Qwen3.5-27B-mtp",
        "",
    ],
)
def test_another_model_is_not_matched(catalog: Catalog, name: str) -> None:
    assert catalog.find_sidecar([name, "me/other"]) == NotFound((name, "me/other"))


def test_a_name_that_is_only_suffixes_is_left_whole() -> None:
    assert core_name("owner/4bit") == "4bit"
    assert core_name("-4bit") == "-4bit"


def test_the_users_entry_wins(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A-Base", "fox/a"), ("Qwen/B", "fox/b"))
    user = catalog_file(tmp_path / "b.yaml", ("qwen/a-base", "me/a"))
    catalog = Catalog.load(shipped, user)
    assert [(entry.repo, entry.origin) for entry in catalog.sidecars] == [("me/a", user), ("fox/b", shipped)]


def test_the_users_entry_wins_by_name_too(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"))
    user = catalog_file(tmp_path / "b.yaml", ("me/A", "me/a"))
    result = Catalog.load(shipped, user).find_sidecar(["someone/A-4bit"])
    assert isinstance(result, Found)
    assert result.entry.repo == "me/a"


def test_an_assistant_does_not_replace_a_sidecar(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"))
    user = catalog_file(tmp_path / "b.yaml", ("Qwen/A", "me/a"), kind="assistant")
    catalog = Catalog.load(shipped, user)
    assert [entry.repo for entry in catalog.sidecars] == ["fox/a"]
    result = catalog.find_assistant(["Qwen/A"])
    assert isinstance(result, Found)
    assert result.entry.repo == "me/a"


def test_a_user_catalog_need_not_exist(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"))
    assert Catalog.load(shipped, tmp_path / "nope.yaml") == Catalog.load(shipped, None)


def test_a_mistake_in_the_users_catalog_is_told_not_skipped(tmp_path: Path) -> None:
    shipped = catalog_file(tmp_path / "a.yaml", ("Qwen/A", "fox/a"))
    user = tmp_path / "b.yaml"
    user.write_text("schema: 1\nentries:\n- {kind: sidecar, base: me/A, rep: me/a}\n")
    with pytest.raises(FormatError, match=r"line 3, entries\[0\]\.rep: unknown key \(did you mean 'repo'\?\)"):
        Catalog.load(shipped, user)
