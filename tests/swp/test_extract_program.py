"""`swp extract` and `swp inspect` as a person runs them, and what `skulk` makes of the result."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cli_checkpoints import DEMO, DEMO_SIDECAR, demo_with_own_head, read_file
from cli_runner import TIMEOUT_S, Finished, OnTerminal, Program
from swp_extracting import SOURCE, extract_here, shipped
from swp_hub import SwpHub
from typer.testing import CliRunner
from upstream_checkpoints import Maker, config, deepseek, deepseek_fp8, deepseek_v4, qwen, trunk, write, write_tensors

from cli.swp import make_app
from skulk_core.errors import NotEnoughSpace, OptionError

WITHOUT_TORCH = "import sys, runpy; sys.modules['torch'] = None; runpy.run_module('cli.swp', run_name='__main__')"


@pytest.fixture(scope="module")
def hub() -> Iterator[SwpHub]:
    with SwpHub() as hub:
        yield hub


@pytest.fixture
def program(hub: SwpHub, tmp_path: Path) -> Program:
    (tmp_path / "home").mkdir()
    return Program(tmp_path / "home", hub.url)


def swp(program: Program, *arguments: str | Path, without_torch: bool = False) -> Finished:
    """Run `swp` to its end, in the program's home."""
    start = ["-c", WITHOUT_TORCH] if without_torch else ["-m", "cli.swp"]
    finished = subprocess.run(
        [sys.executable, *start, *arguments],
        env=program.environment({}),
        cwd=program.home,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_the_demos_head_comes_out_bit_for_bit_and_skulk_takes_it(
    where: str, hub: SwpHub, program: Program, tmp_path: Path
) -> None:
    """The whole way: a checkpoint as upstream releases it, its head, and a text decoded with it.

    On the way the Hub asks for patience, which has to be told: a program that says nothing for minutes hangs.
    """
    upstream, trunk_only = demo_with_own_head(tmp_path / "up"), shutil.copytree(DEMO, tmp_path / "trunk")
    if where == "hub":
        repo = hub.add("owner/Demo-0.1B", upstream)
        repo.faults.statuses = [(429, {"Retry-After": "1"})]
        done = swp(program, "extract", f"owner/Demo-0.1B@{repo.sha}", without_torch=True)
        assert "owner/Demo-0.1B: the Hub asks for fewer requests (429); trying again in 1 s" in done.stderr
        out = program.home / "demo-0-1b-mtp"
    else:
        out = tmp_path / "out"
        done = swp(program, "extract", upstream, "--source", SOURCE, "--out", out, without_torch=True)
    assert done.code == 0, done.stderr
    assert done.stdout == f"{out.name if where == 'hub' else out}\n"
    assert shipped(out) == read_file(DEMO_SIDECAR)[0]
    assert sorted(file.name for file in out.iterdir()) == ["LICENSE", "README.md", "mtp.safetensors", "provenance.json"]
    if where == "hub":
        assert repo.sha in (out / "README.md").read_text()
        ran = program.run("run", trunk_only, "The list of", "--sidecar", out, "--max-tokens", "20")
        assert ran.code == 0, ran.stderr
        assert ran.stdout.strip()
        assert "accepted by position" in ran.stderr


def test_json_tells_a_script_where_the_files_are(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "up", deepseek())
    arguments = ("extract", tmp_path / "up", "--source", SOURCE, "--out", tmp_path / "out", "--json", "--quiet")
    done = swp(program, *arguments)
    assert (done.code, done.stderr) == (0, "")
    assert done.answer["source"] == SOURCE
    assert done.answer["layout"] == "nextn"
    assert done.answer["shared_tensors"] == [
        "model.layers.2.embed_tokens.weight",
        "model.layers.2.shared_head.head.weight",
    ]
    names = [file["name"] for file in done.answer["files"]]
    assert names == ["mtp.safetensors", "LICENSE"]


def test_inspect_shows_the_head_and_reads_headers_only(hub: SwpHub, program: Program, tmp_path: Path) -> None:
    built = deepseek_v4()
    repo = hub.add("owner/v4", write(tmp_path / "up", built, 3))
    shown = swp(program, "inspect", "owner/v4", "--json", without_torch=True)
    assert shown.code == 0, shown.stderr
    answer = shown.answer
    assert (answer["layout"], answer["num_heads"]) == ("deepseek_v4", 1)
    assert answer["source"] == f"owner/v4@{repo.sha}"
    assert {one["name"] for one in answer["tensors"]} == set(built.head) | set(built.made)
    assert {one["recipe"] for one in answer["tensors"]} == {"copy", "fp8_block", "fp4_block"}
    assert [one["trunk_name"] for one in answer["possible_copies"]] == ["embed.weight", "head.weight"]
    assert answer["licence"] == {"id": "apache-2.0", "name": None, "link": None}
    head_nbytes = sum(len(tensor.data) for tensor in {**built.head, **built.stored, **built.scales}.values())
    assert head_nbytes <= answer["fetch_nbytes"] <= 1.02 * head_nbytes
    assert repo.sent_weights_nbytes < answer["header_nbytes"]


def test_inspect_for_a_person(program: Program, tmp_path: Path) -> None:
    built = qwen()
    built.head["mtp.fc.weight"] = Maker(0).f32(8, 16)
    write(tmp_path / "up", built, card='---\nlicense: other\nlicense_name: "x\\u001b[31m"\n---\n')
    shown = swp(program, "inspect", tmp_path / "up")
    assert shown.code == 0, shown.stderr
    for words in ("mtp.fc.weight", "cast", "qwen_mtp, 1 depth(s)", "licence: other (x\\x1b[31m)", "LICENSE"):
        assert words in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("UP",), 2, ("--source", "OWNER/NAME@SHA")),
        (("UP", "--source", "owner/model@main"), 2, ("--source", "40 hexadecimal digits")),
        (("UP", "--source", "nonsense"), 2, ("--source",)),
        (("UP", "--source", SOURCE, "--jobs", "0"), 2, ("--jobs", "at least 1")),
        (("UP", "--source", SOURCE, "--layout", "nextm"), 2, ("--layout", "nextn")),
        (("owner/model", "--source", SOURCE), 2, ("--source", "its own source")),
        (("demo",), 2, ("demo",)),
        (("PLAIN", "--source", SOURCE), 1, ("llama", "without a draft head", "without speculation")),
        (("STRIPPED", "--source", SOURCE), 1, ("stripped", "owner/original")),
        (("EMPTY", "--source", SOURCE), 1, ("config.json",)),
    ],
)
def test_mistakes_are_told_in_one_line_with_what_to_do(
    arguments: tuple[str, ...], code: int, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = write(tmp_path / "up", qwen())
    plain = write_tensors(tmp_path / "plain", config("llama"), trunk(Maker(0)))
    card = "---\nlicense: mit\nbase_model: owner/original\n---\n"
    settings = config("qwen3_5", mtp_num_hidden_layers=1)
    stripped = write_tensors(tmp_path / "stripped", settings, trunk(Maker(0)), card=card)
    (tmp_path / "empty").mkdir()
    places = {"UP": up, "PLAIN": plain, "STRIPPED": stripped, "EMPTY": tmp_path / "empty"}
    monkeypatch.chdir(tmp_path)
    # cards of base models would be asked of the real Hub
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    typed = ["extract", *(str(places.get(one, one)) for one in arguments)]
    result = CliRunner().invoke(make_app(), typed, catch_exceptions=False)
    Finished(result.exit_code, result.stdout, result.stderr).assert_fails(code, *words)
    assert list(tmp_path.glob("*-mtp")) == []


def test_without_torch_a_quantised_head_says_what_to_install_before_fetching(
    hub: SwpHub, program: Program, tmp_path: Path
) -> None:
    repo = hub.add("owner/fp8", write(tmp_path / "up", deepseek_fp8()))
    done = swp(program, "extract", "owner/fp8", without_torch=True)
    done.assert_fails(1, "torch", "pip install 'torch>=")
    assert repo.sent_weights_nbytes < 20_000


def test_scales_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    """They are shipped as upstream has them: the code 0xFF of E8M0 is NaN, and spoils every draft."""
    built = deepseek_fp8(e8m0=True)
    name = next(iter(built.scales))
    built.scales[name] = replace(built.scales[name], data=b"\xff" + built.scales[name].data[1:])
    write(tmp_path / "up", built)
    for asked in ("--quiet", "--json"):
        typed = ["extract", str(tmp_path / "up"), "--source", SOURCE, "--out", str(tmp_path / "out"), asked]
        result = CliRunner().invoke(make_app(), typed, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        assert result.stderr.count("NaN upstream") == 1
        assert name.removesuffix("_scale_inv") in result.stderr
    assert json.loads(result.stdout)["nan_scales"] == [name.removesuffix("_scale_inv")]


def test_ctrl_c_ends_quietly_and_the_next_run_goes_on(hub: SwpHub, program: Program, tmp_path: Path) -> None:
    """What was fetched so far was paid for."""
    built, make = qwen(), Maker(1)
    built.head["mtp.layers.0.self_attn.o_proj.weight"] = make.bits("BF16", (48 << 20, 1), 2)
    repo = hub.add("owner/large-head", write(tmp_path / "up", built))
    begun, interrupted = Event(), Event()

    def hold_back(sent_nbytes: int) -> None:
        if sent_nbytes > 40 << 20:
            begun.set()
            interrupted.wait(TIMEOUT_S)

    repo.faults.on_sent = hold_back
    arguments = [sys.executable, "-m", "cli.swp", "extract", "owner/large-head", "--jobs", "1"]
    process = subprocess.Popen(
        arguments, env=program.environment({}), cwd=program.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert begun.wait(TIMEOUT_S)
    os.kill(process.pid, signal.SIGINT)
    interrupted.set()
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stdout) == (130, b"")
    assert b"interrupted" in stderr
    assert b"Traceback" not in stderr
    assert not (program.home / "large-head-mtp").exists()
    before = repo.sent_weights_nbytes
    done = swp(program, "extract", "owner/large-head")
    assert done.code == 0, done.stderr
    assert shipped(program.home / "large-head-mtp") == built.shipped
    assert repo.sent_weights_nbytes - before < 70 << 20


class OnSwpTerminal(Program):
    """`swp` in place of `skulk`."""

    def start(self, *arguments: Any, stderr: int = subprocess.PIPE, **settings: str) -> "subprocess.Popen[bytes]":
        """Start it; nothing on stdin."""
        return subprocess.Popen(
            [sys.executable, "-m", "cli.swp", *arguments],
            env=self.environment(settings),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )


def test_a_terminal_shows_how_many_bytes_of_how_many(hub: SwpHub, program: Program, tmp_path: Path) -> None:
    """Hours of fetching without a sign are indistinguishable from a program that hangs."""
    repo, shown = hub.add("owner/slow", write(tmp_path / "up", qwen())), Event()

    def hold_back(sent_nbytes: int) -> None:
        if sent_nbytes > 4000:
            shown.wait(TIMEOUT_S)

    repo.faults.on_sent = hold_back
    terminal = OnTerminal(OnSwpTerminal(program.home, program.endpoint), "extract", "owner/slow")
    terminal.wait_for("fetching the head")
    terminal.wait_for(" MB")
    shown.set()
    assert terminal.finish().code == 0


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "up", qwen())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("swp.out_folder.shutil.disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(NotEnoughSpace, match="0.00 GB free"):
        extract_here(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_help_needs_neither_torch_nor_a_hub(program: Program) -> None:
    shown = swp(program, "extract", "--help", without_torch=True)
    assert shown.code == 0, shown.stderr
    assert "--no-compare" in shown.stdout


def test_a_folder_with_other_things_in_it_is_not_written_into(tmp_path: Path) -> None:
    """`--out .` in a project would replace its README and LICENSE."""
    folder, project = write(tmp_path / "up", qwen()), tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine")
    with pytest.raises(OptionError, match="--out.*not empty"):
        extract_here(folder, project)
    assert (project / "README.md").read_text() == "mine"


def test_an_upstream_licence_and_notice_are_copied_byte_for_byte(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "up", qwen(), card="---\nlicense: other\nlicense_name: l\nlicense_link: LICENSE-MODEL\n---\n"
    )
    for name in ("LICENSE-MODEL", "NOTICE.txt"):
        (folder / name).write_bytes(f"{name}\r\n\xff".encode("latin-1"))
    manifest = extract_here(folder, tmp_path / "out")
    for name in ("LICENSE", "LICENSE-MODEL", "NOTICE.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    assert [file.name for file in manifest.files] == ["mtp.safetensors", "LICENSE", "LICENSE-MODEL", "NOTICE.txt"]
    assert (manifest.licence.id, manifest.licence.name, manifest.licence.link) == ("other", "l", "LICENSE-MODEL")


def test_the_manifest_is_the_same_when_it_is_made_again(tmp_path: Path) -> None:
    """No times and nothing of the machine: two people who extract the same commit can compare."""
    folder = write(tmp_path / "up", deepseek())
    texts: list[Any] = []
    for name in ("one", "two"):
        extract_here(folder, tmp_path / name)
        texts.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert texts[0] == texts[1]
    assert json.loads(texts[0]["provenance.json"])
