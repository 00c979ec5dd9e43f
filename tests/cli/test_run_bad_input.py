"""What a stranger does wrong, and what they are told: one message, what to do next, an exit code, no traceback."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_checkpoints import DEMO, demo_copy, read_file, sidecar, write_file
from cli_runner import Argument, Finished, Program
from hub_loopback import LoopbackHub, Repo

FAILED, USAGE = 1, 2


MISTAKES: dict[str, tuple[list[Argument], list[str]]] = {
    "empty prompt": (["demo", ""], ["the prompt is empty"]),
    "blank prompt": (["demo", " \n\t"], ["the prompt is empty"]),
    "prompt in another encoding": (["demo", b"a\xff"], ["the prompt is not UTF-8 text"]),
    "stop string in another encoding": (["demo", "hi", "--stop", b"\xff"], ["--stop \\udcff: not UTF-8 text"]),
    "empty stop string": (["demo", "hi", "--stop", ""], ["--stop", "ends everything"]),
    "no tokens": (["demo", "hi", "--max-tokens", "0"], ["--max-tokens 0: must be at least 1"]),
    "no context": (["demo", "hi", "--context", "0"], ["--context 0: must be at least 1"]),
    "negative depth": (["demo", "hi", "--draft-depth", "-1"], ["--draft-depth -1: must be at least 0"]),
    "word for a number": (["demo", "hi", "--max-tokens", "many"], ["--max-tokens", "integer"]),
    "dtype": (["demo", "hi", "--dtype", "float8"], ["--dtype", "float8", "bfloat16"]),
    "precision": (["demo", "hi", "--head-precision", "2bit"], ["--head-precision", "2bit", "4bit"]),
    "convention": (["demo", "hi", "--convention", "norm_ofset=1"], ["norm_ofset", "norm_offset"]),
    "unknown option": (["demo", "hi", "--frobnicate"], ["No such option", "--frobnicate", "--help"]),
    "two prompts": (["demo", "hi", "there"], ["there"]),
    "no model": ([], ["model"]),
    "missing folder": (["./no/such", "hi"], ["./no/such", "no such folder", "OWNER/NAME"]),
    "missing folder and no prompt": (["/no/such"], ["/no/such: no such folder"]),
    "misspelt name": (["dmeo", "hi"], ["dmeo", "demo"]),
    "missing sidecar": (
        ["demo", "hi", "--sidecar", "./nowhere.safetensors"],
        ["./nowhere.safetensors", "no such file"],
    ),
}


@pytest.fixture(scope="module")
def mistakes(skulk: Program) -> dict[str, Finished]:
    return skulk.run_all({what: ("run", *arguments) for what, (arguments, _) in MISTAKES.items()})


@pytest.mark.parametrize("what", MISTAKES)
def test_what_is_wrong_with_the_command_line(mistakes: dict[str, Finished], what: str) -> None:
    mistakes[what].assert_fails(USAGE, *MISTAKES[what][1])


def test_a_model_without_a_prompt(skulk: Program, plain_llama: Path) -> None:
    skulk.run("run", plain_llama).assert_fails(USAGE, "no prompt was given", "`-`")


@pytest.mark.parametrize(
    ("stdin", "words"),
    [(b"", ["the prompt is empty"]), (b"caf\xe9", ["stdin is not UTF-8 text", "byte 0xe9 at offset 3"])],
)
def test_a_prompt_on_stdin_that_is_none(skulk: Program, stdin: bytes, words: list[str]) -> None:
    skulk.run("run", "demo", "-", stdin=stdin).assert_fails(USAGE, *words)


def test_more_than_the_context_holds(skulk: Program) -> None:
    prompt = " word" * 4100
    finished = skulk.run_all(
        {
            "prompt": ("run", "demo", prompt),
            "both": ("run", "demo", prompt, "--context", "64", "--max-tokens", "9"),
            "context": ("run", "demo", "hi", "--context", "5000"),
        }
    )
    words = ["4100 prompt tokens + at least 1 new token = 4101", "a context of 4096 tokens"]
    finished["prompt"].assert_fails(USAGE, *words)
    assert "[transformers]" not in finished["prompt"].stderr
    finished["both"].assert_fails(USAGE, "4100 prompt tokens + 9 new tokens = 4109", "a context of 64 tokens")
    finished["context"].assert_fails(USAGE, "--context 5000", "4096")


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def folder_in_place_of(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])


def configured(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return change


def without_a_tensor(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors, _ = read_file(file)
    del tensors["model.language_model.norm.weight"]
    write_file(file, tensors)


def with_a_template(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def with_a_token_more(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    assert "hi" in tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"]["hi"] = 4096
    file.write_text(json.dumps(tokenizer))


TEXT = json.loads((DEMO / "config.json").read_text())["text_config"]


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no configuration": (without("config.json"), ["config.json", "no such file"]),
    "no model type": (configured(model_type=None), ["config.json", "names no model_type"]),
    "unknown model type": (configured(model_type="frob[red]"), ["'frob[red]' is not supported", "qwen3_5"]),
    "zero heads": (configured(text_config={**TEXT, "num_attention_heads": 0}), ["mlx-lm cannot load it"]),
    "list for a mapping": (configured(text_config=[]), ["mlx-lm cannot load it"]),
    "word for a length": (
        configured(text_config={**TEXT, "max_position_embeddings": "x"}),
        ["max_position_embeddings"],
    ),
    "unreadable configuration": (folder_in_place_of("config.json"), ["config.json", "Is a directory"]),
    "no weights": (without("model.safetensors"), ["model.safetensors"]),
    "truncated weights": (truncated, ["model.safetensors", "truncated", "100000"]),
    "unreadable weights": (folder_in_place_of("model.safetensors"), ["model.safetensors", "is a folder"]),
    "missing tensor": (without_a_tensor, ["norm.weight"]),
    "no tokenizer": (without("tokenizer.json"), ["tokenizer.json"]),
    "tokenizer of another model": (
        with_a_token_more,
        ["the prompt has token 4096, and the model's token ids end at 4095", "tokenizer.json"],
    ),
    "settings that are a folder": (
        folder_in_place_of("generation_config.json"),
        ["mlx-lm cannot load it", "Is a directory"],
    ),
    "weights that no index names": (
        lambda folder: (folder / "model.safetensors").rename(folder / "weights.safetensors"),
        ["has neither model.safetensors nor model.safetensors.index.json, only weights.safetensors"],
    ),
    "template that fails as any program can": (
        with_a_template("{{ messages + 3 }}"),
        ["the chat template cannot be applied", "try --raw"],
    ),
}


@pytest.fixture(scope="module")
def broken(skulk: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    commands = {}
    for what, (breakage, _) in BROKEN.items():
        folder = demo_copy(tmp_path_factory.mktemp("broken") / "model")
        breakage(folder)
        commands[what] = ("run", folder, "hi")
    return skulk.run_all(commands)


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_is_no_whole_model(broken: dict[str, Finished], what: str) -> None:
    broken[what].assert_fails(USAGE if "template" in what else FAILED, *BROKEN[what][1])


def test_a_working_directory_that_was_deleted(skulk: Program) -> None:
    finished = skulk.shell('cd "$(mktemp -d)" && rmdir "$PWD" && exec "$@"', "run", "demo", "hi")
    finished.assert_fails(FAILED, "the working directory cannot be used: No such file or directory", "`cd`")


OTHER_HEADS: dict[str, tuple[dict[str, str], list[str]]] = {
    "another hidden size": ({"trunk__hidden_size": "512"}, ["hidden_size 512", "this model has 256"]),
    "another vocabulary": ({"trunk__vocab_size": "4097"}, ["vocab_size 4097", "this model has 4096"]),
    "a newer format": ({"version": "2"}, ["version", "newer"]),
    "a missing tensor": ({"without": "mtp.fc.weight"}, ["lacks mtp.fc.weight"]),
    "a surplus tensor": ({"surplus": "mtp.extra.weight"}, ["mtp.extra.weight"]),
}


@pytest.fixture(scope="module")
def other_heads(skulk: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    commands = {}
    for what, (changes, _) in OTHER_HEADS.items():
        file = sidecar(tmp_path_factory.mktemp("heads") / "mtp.safetensors", **changes)
        commands[what] = ("run", "demo", "hi", "--sidecar", file)
    return skulk.run_all(commands)


@pytest.mark.parametrize("what", OTHER_HEADS)
def test_a_sidecar_of_another_model(other_heads: dict[str, Finished], what: str) -> None:
    other_heads[what].assert_fails(FAILED, "mtp.safetensors", *OTHER_HEADS[what][1])


def test_a_sidecar_of_another_hidden_size_that_does_not_say_so(
    skulk: Program, tmp_path: Path, plain_llama: Path
) -> None:
    file = sidecar(tmp_path / "mtp.safetensors", version=None)
    conventions = ["norm_offset=1", "concat_order=embedding_first", "hidden_tap=post_norm"]
    conventions += ["chain_tap=post_norm", "position_rule=running"]
    options = [part for pair in conventions for part in ("--convention", pair)]
    finished = skulk.run("run", plain_llama, "hi", "--sidecar", file, *options)
    finished.assert_fails(FAILED, "mtp.safetensors", "--draft-depth 0")


def test_a_sidecar_whose_wiring_nobody_knows_is_not_measured_where_it_does_not_fit(
    skulk: Program, tmp_path: Path, plain_llama: Path
) -> None:
    file = sidecar(tmp_path / "mtp.safetensors", version=None)
    finished = skulk.run("run", plain_llama, "hi", "--sidecar", file)
    finished.assert_fails(FAILED, "mtp.safetensors: has tensors this model's head does not", "--draft-depth 0")


def test_a_refused_sidecar_with_leave_to_go_on(skulk: Program, tmp_path: Path) -> None:
    file = sidecar(tmp_path / "mtp.safetensors", trunk__vocab_size="4097")
    finished = skulk.run("run", "demo", "hi", "--sidecar", file, "--allow-plain", "--max-tokens", "3")
    assert finished.code == 0
    assert "depth 0: the draft head cannot be used" in finished.stderr
    assert "vocab_size 4097" in finished.stderr


def test_a_depth_for_a_model_without_a_head(skulk: Program, plain_llama: Path) -> None:
    asked = ["run", plain_llama, "hi", "--draft-depth", "2", "--max-tokens", "3"]
    skulk.run(*asked).assert_fails(FAILED, "no draft head found", "the checkpoint's own files", "--allow-plain")
    allowed = skulk.run(*asked, "--allow-plain")
    assert allowed.code == 0
    assert "depth 0: no draft head in the checkpoint's own files" in allowed.stderr


def test_no_network(skulk: Program) -> None:
    skulk.run("run", "owner/name", "hi").assert_fails(FAILED, "owner/name: no connection to the Hub", "folder")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        files = {path.name: path.read_bytes() for path in DEMO.iterdir()}
        hub.repos["owner/tiny"] = Repo(files)
        yield hub


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("owner/tiny@v9", ["owner/tiny: no revision v9", "branch, tag or commit"]),
        ("owner/tyni", ["owner/tyni: no such repository", "hf auth login"]),
    ],
)
def test_a_repository_that_is_not_there(skulk: Program, hub: LoopbackHub, model: str, words: list[str]) -> None:
    skulk.run("run", model, "hi", HF_ENDPOINT=hub.url).assert_fails(FAILED, *words)


HOSTILE = "\x1b[31m[red]\u202e:smile:\n"


def test_hostile_names_are_shown_and_not_obeyed(skulk: Program, tmp_path: Path) -> None:
    shown = "\\x1b[31m[red]\\u202e:smile:\\n"
    wrong = skulk.run("run", HOSTILE, "hi")
    wrong.assert_fails(USAGE, shown)
    folder = tmp_path / HOSTILE
    shutil.copytree(DEMO, folder)
    (folder / "config.json").unlink()
    broken = skulk.run("run", folder, "hi")
    broken.assert_fails(FAILED, f"{shown}/config.json: no such file")
    option = skulk.run("run", "demo", "hi", "--" + HOSTILE)
    option.assert_fails(USAGE, "[red]")
    assert "\x1b[31m[" not in option.stderr  # written by Typer, which knows of colours only
    for text in (wrong.stderr, broken.stderr):
        assert {character for character in text if not character.isprintable()} == {"\n"}
