"""What a name on the command line means."""

from pathlib import Path

import pytest

from skulk_core.errors import FileError, ModelNameError, OptionError
from skulk_core.hub.refs import DemoRef, FileRef, FolderRef, RepoRef, parse_model, parse_sidecar, parse_trunk


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("demo", DemoRef()),
        ("Qwen/Qwen3.5-2B", RepoRef("Qwen/Qwen3.5-2B", "main")),
        ("Qwen/Qwen3.5-2B@v1.0", RepoRef("Qwen/Qwen3.5-2B", "v1.0")),
        ("Qwen/Qwen3.5-2B@refs/pr/1", RepoRef("Qwen/Qwen3.5-2B", "refs/pr/1")),
        ("Qwen/Qwen3.5-2B@" + "0a" * 20, RepoRef("Qwen/Qwen3.5-2B", "0a" * 20)),
    ],
)
def test_names(text: str, ref: object) -> None:
    assert parse_model(text) == ref
    assert str(parse_model(text)) == text


def test_a_folder_wins_over_a_repository_of_that_name(here: Path) -> None:
    (here / "Qwen" / "Qwen3.5-2B").mkdir(parents=True)
    assert parse_model("Qwen/Qwen3.5-2B") == FolderRef(Path("Qwen/Qwen3.5-2B"))


def test_a_single_word_may_be_a_folder(here: Path) -> None:
    (here / "tiny").mkdir()
    assert parse_model("tiny") == FolderRef(Path("tiny"))


def test_the_demo_wins_over_a_folder_of_that_name(here: Path) -> None:
    (here / "demo").mkdir()
    assert parse_model("demo") == DemoRef()
    assert parse_model("./demo") == FolderRef(Path("demo"))


def test_home_is_expanded(here: Path) -> None:
    (here / "home" / "tiny").mkdir(parents=True)
    assert parse_model("~/tiny") == FolderRef(here / "home" / "tiny")


@pytest.mark.parametrize("text", ["./nope", "../nope", "/nope", "~/nope", "models/owner/name", "nope/", "~nobody/x"])
def test_a_path_that_is_not_there(text: str) -> None:
    with pytest.raises(ModelNameError, match="no such folder"):
        parse_model(text)


def test_a_file_is_not_a_model(here: Path) -> None:
    (here / "model.safetensors").touch()
    with pytest.raises(ModelNameError, match="is a file"):
        parse_model("model.safetensors")


@pytest.mark.parametrize(("text", "hint"), [("dmeo", "'demo'"), ("Tinny", "'tiny'")])
def test_a_near_miss_is_suggested(here: Path, text: str, hint: str) -> None:
    (here / "tiny").mkdir()
    with pytest.raises(ModelNameError, match=f"did you mean {hint}"):
        parse_trunk(text)


def test_the_demo_is_offered_only_where_something_decodes() -> None:
    """`swp extract dem` would be sent to a model that has nothing to extract."""
    for text in ("dmeo", "something"):
        with pytest.raises(ModelNameError) as caught:
            parse_model(text)
        assert "demo" not in str(caught.value)
        assert not caught.value.decodes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("something", "neither a folder here, nor a repository"),
        ("owner/name@", "no revision after the @"),
        ("owner/na me", "OWNER/NAME"),
        ("-owner/name", "OWNER/NAME"),
        ("owner/a--b", "OWNER/NAME"),
        ("owner/" + "n" * 100, "96 characters"),
        ("https://huggingface.co/owner/name", "is an address"),
        ("x" * 300, "neither"),
    ],
)
def test_what_is_no_model_at_all(text: str, reason: str) -> None:
    with pytest.raises(ModelNameError, match=reason) as caught:
        parse_model(text)
    assert caught.value.name == text


def test_a_sidecar_is_a_file_or_the_folder_that_holds_it(here: Path) -> None:
    (here / "head").mkdir()
    file = here / "head" / "mtp.safetensors"
    file.touch()
    assert parse_sidecar(str(file)) == FileRef(file)
    assert parse_sidecar("head") == FileRef(Path("head/mtp.safetensors"))


def test_a_sidecar_may_be_a_repository() -> None:
    assert parse_sidecar("owner/name-mtp@v2") == RepoRef("owner/name-mtp", "v2")


def test_a_folder_without_the_sidecar_file(here: Path) -> None:
    (here / "head").mkdir()
    with pytest.raises(FileError, match=r"holds no mtp\.safetensors"):
        parse_sidecar("head")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("./head", "no such file or folder"),
        ("mtp.safetensors", "no such file or folder"),
        ("owner/mtp.safetensors", "no such file or folder"),
        ("word", "OWNER/NAME"),
        ("", "OWNER/NAME"),
    ],
)
def test_what_is_no_sidecar(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason) as caught:
        parse_sidecar(text)
    assert caught.value.option == "--sidecar"
