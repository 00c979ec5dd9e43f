"""`skulk bench --peers local:N --link-delay`: what a slow link costs, in a receipt, and nothing left behind."""

import json
import os
import signal
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from cli_runner import OnTerminal, Program, in_process
from cluster_rings import wait_until_gone
from proc_files import children, listeners, listening

from skulk_core.formats.receipt_reading import read_receipt
from skulk_core.runtime.resources import demo_sidecar

DELAY_MS, RATE_MBPS = 5.0, 500.0
SLOW = ("--peers", "local:2", "--link-delay", f"{DELAY_MS:g}", "--link-rate", f"{RATE_MBPS:g}")


@pytest.fixture(scope="module")
def one_prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("The server handles each request in a separate thread. If\n", encoding="utf-8")
    return file


def test_a_receipt_of_a_ring_has_what_one_of_a_host_has(skulk: Program, one_prompt: Path, tmp_path: Path) -> None:
    """Its reader could not tell what the link cost, or which sidecar was measured."""
    quick = ("--draft-depth", "2", "--tokens", "12", "--runs", "1", "--prompts", one_prompt)
    done = skulk.run("bench", "demo", *SLOW, *quick, "--json", "--out", tmp_path / "out")
    assert done.code == 0, done.stderr
    found = read_receipt(tmp_path / "out" / "bench.json")
    assert found.to_dict()["cases"] == json.loads(done.stdout)["cases"]
    assert (found.hosts, found.link_delay_ms, found.link_rate_mbps) == (2, DELAY_MS, RATE_MBPS)
    assert [stage.end for stage in found.stages][-1] == found.model.num_layers == 8
    assert found.sidecar is not None
    assert found.sidecar.sha256 == sha256(demo_sidecar().read_bytes()).hexdigest()
    assert found.sidecar.layout == "qwen_mtp"
    assert found.sidecar.conventions["concat_order"] == "embedding_first"
    assert (found.shard, found.backend) == ("pipeline", "ring")
    (only,) = found.cases
    assert only.costs is not None
    # two links a lap, in every pass and in what is predicted from it
    assert min(only.costs.lap_s.values()) >= 2 * DELAY_MS / 1000
    plain, deep = only.arms
    for arm in (plain, deep):
        assert arm.same_as_reference
        assert arm.certificate is not None
        assert arm.certificate.divergences == 0
        assert arm.predicted_tokens_per_s is not None
        assert arm.profile is not None
        assert arm.profile.link_s >= 2 * DELAY_MS / 1000
        assert arm.profile.other_s <= 0.3 * arm.profile.decode_s
        assert len(arm.peaks_by_rank) == 2
        assert all(arm.peaks_by_rank)
        assert arm.counts is not None
        assert arm.counts.messages == 2 * arm.counts.counted_rounds == 2 * arm.counts.rounds
    plain_s = only.costs.round_s(0)
    assert plain_s is not None
    assert plain.predicted_tokens_per_s == pytest.approx(1 / plain_s)
    page = (tmp_path / "out" / "bench.md").read_text(encoding="utf-8")
    for said in ("5 ms one way, 500 Mbit/s", "| of it lap |", "| link |", "rank 1 |"):
        assert said in page


def test_a_closed_terminal_leaves_nothing_behind(skulk: Program, one_prompt: Path, tmp_path: Path) -> None:
    """The proxy's ports and the workers behind it end with the benchmark, which writes what there is."""
    long = ("--draft-depth", "1", "--tokens", "200", "--runs", "500", "--prompts", one_prompt)
    terminal = OnTerminal(skulk, "bench", "demo", *SLOW, *long, "--out", tmp_path / "out", COLUMNS="120")
    terminal.wait_for("texts")
    pid = terminal.process.pid
    workers = [os.pidfd_open(child) for child in children(pid)]
    ports = listening(pid)
    assert len(workers) == len(ports) == 2
    terminal.process.send_signal(signal.SIGHUP)
    done = terminal.finish()
    assert done.code == 129, done.stderr
    assert "Traceback" not in done.stderr
    assert wait_until_gone(workers)
    for descriptor in workers:
        os.close(descriptor)
    assert not ports & set(listeners())
    found = read_receipt(tmp_path / "out" / "bench.json")
    assert not found.complete
    assert found.link_delay_ms == DELAY_MS


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--link-delay", "5"), "--peers local:N"),
        (("--link-rate", "5"), "--peers local:N"),
        (("--link-delay", "5", "--peers", "local:1"), "no link"),
        (("--link-rate", "9", "--peers", "ana@10.0.0.2"), "ana@10.0.0.2 is reached over a real one"),
        (("--link-delay", "5", "--peers", "local:2", "--backend", "nccl"), "--backend nccl"),
        (("--link-delay", "-1", "--peers", "local:2"), "from 0 to 10000"),
        (("--link-delay", "nan", "--peers", "local:2"), "from 0 to 10000"),
        (("--link-rate", "0", "--peers", "local:2"), "from 0.1 on"),
        (("--link-delay", "5", "--peers", "local:2", "--save-depth"), "slower than they are"),
    ],
)
def test_a_link_that_cannot_be_had_is_refused_in_words(arguments: tuple[str, ...], says: str) -> None:
    """Before anything is loaded, and before another machine is asked."""
    done = in_process("bench", "demo", *arguments)
    assert done.code == 2, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not [thread for thread in threading.enumerate() if thread.name == "slow links"]
