"""`skulk plan` and `skulk peers` as programs: what they say, what they fetch for it, and what they refuse."""

import json
import re
from pathlib import Path

import pytest
from cli_checkpoints import plain_llama
from cli_runner import Program, in_process
from hub_loopback import LoopbackHub, Repo


def test_a_model_on_the_hub_is_planned_from_its_headers(tmp_path: Path) -> None:
    """Nobody downloads 400 GB to hear that they do not fit."""
    folder = plain_llama(tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    huge = {**config, "max_position_embeddings": 10**9}
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    with LoopbackHub() as hub:
        hub.repos["owner/plain"] = Repo(files)
        hub.repos["owner/with-a-head"] = Repo({**files, "mtp.safetensors": b"-" * 10_000_000})
        hub.repos["owner/long"] = Repo({**files, "config.json": json.dumps(huge).encode()})
        program = Program(tmp_path / "home", hub.url)
        done = program.run_all(
            {
                "plan": ("plan", "owner/plain", "--peers", "local:2", "--json"),
                "head": ("plan", "owner/with-a-head", "--peers", "local:2", "--json"),
                "large": ("plan", "owner/long", "--context", "900000000", "--peers", "local:2"),
                "shown": ("plan", "owner/plain", "--peers", "local:2"),
                "many": ("plan", "owner/plain", "--peers", "local:9"),
            }
        )
        weights = [request for request in hub.requests if request.path.endswith(".safetensors")]
        assert all(request.range for request in weights if request.method == "GET")
    planned = done["plan"]
    assert planned.code == 0, planned.stderr
    stages = planned.answer["stages"]
    assert [stage["layers"] for stage in stages] == [[0, 1], [1, 2]]
    assert [stage["parts"]["head"] > 0 for stage in done["head"].answer["stages"]] == [False, True]
    assert "mtp.safetensors beside the checkpoint" in done["head"].stdout
    # as `run --json` has them
    assert "[0, 1)" in done["shown"].stdout
    whole = sum(len(content) for name, content in files.items() if name.endswith(".safetensors"))
    # float32 on this machine, stored in half of it or in as much; the embedding is on both sides
    said = sum(stage["parts"]["layers"] + stage["parts"]["parts"] for stage in stages)
    assert whole * 0.9 < said < whole * 4
    done["large"].assert_fails(1, "error: the model does not fit on these hosts:\n", "\n  Add a host")
    _, heads, *rows, _ = done["large"].stderr.splitlines()
    assert re.split(r"  +", heads.strip()) == ["host", "needed", "available", "short by"]
    cells = [re.split(r"  +", row.strip()) for row in rows]
    assert [host for host, *_ in cells] == ["local#1", "local#2"]
    for _, *sizes in cells:
        needed, has, short = (float(size.removesuffix(" GB").replace(",", "")) for size in sizes)
        assert short == pytest.approx(needed - has, abs=0.02)
    # figures stand under one another
    assert len({len(line) for line in (heads, *rows)}) == 1
    done["many"].assert_fails(2, "9 hosts for a model that makes at most 2 stages")


def test_peers_shows_this_machine_and_which_files_it_has() -> None:
    answer = in_process("peers", "--peers", "local", "--model", "demo", "--json").answer
    (own,) = answer["hosts"]
    assert own["ok"]
    assert own["total_nbytes"] >= own["available_nbytes"] > 0
    assert own["nbytes_per_s"] > 0
    assert own["model"]["missing"] == 0
    assert answer["trouble"] is None
    shown = in_process("peers", "--peers", "local", "--model", "demo")
    assert shown.code == 0
    assert "✓" in shown.stdout
    assert "whole" in shown.stdout


def test_peers_alone_needs_a_hosts_file(skulk: Program) -> None:
    """`--peers` without a value is every host of hosts.yaml, and there is none."""
    skulk.run("plan", "demo", "--peers", "--json").assert_fails(2, "hosts.yaml, which does not exist")
