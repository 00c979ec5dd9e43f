"""`skulk bench`: arms side by side, figures that belong together, and nothing that turns speculation off unsaid."""

import json
import signal
from dataclasses import replace
from hashlib import sha256
from inspect import signature
from pathlib import Path

import pytest
from cli_checkpoints import demo_copy
from cli_runner import OnTerminal, Program, in_process
from jinja2 import TemplateNotFound
from receipts import MACHINE, PROMPTS, case, receipt

from cli.arguments import complete
from cli.bench import bench_command
from cli.bench_command import FLAGS, recorded_command
from cli.bench_files import OutFolder
from cli.bench_options import Wish
from cli.bench_show import show_receipt
from cli.cluster import Spread
from cli.loading import Choice
from cli.run import run_command
from cli.skulk import OPTIONAL_VALUES
from cli.tune import save_best
from skulk_core.bench.compare import compare
from skulk_core.bench.measure import Bench, Measurement, Watch, measure
from skulk_core.bench.prompts import named_set
from skulk_core.bench.suite import SuiteCase
from skulk_core.bench.tables import costs_table, speed_table, work_table
from skulk_core.errors import RingChanged
from skulk_core.formats.cards import Card, read_cards
from skulk_core.formats.receipt import Receipt
from skulk_core.formats.receipt_facts import StageRecord
from skulk_core.formats.receipt_reading import read_receipt
from skulk_core.runtime.resources import demo_sidecar
from skulk_core.sampling.settings import AcceptRule, SamplingSettings
from skulk_core.types import Exactness

QUICK = ("--tokens", "12", "--runs", "1")
# of `run`, what says where an answer goes rather than how it is decoded
NOT_OF_DECODING = {"prompt"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Receipt, Path]:
    """One small benchmark with everything."""
    folder = tmp_path_factory.mktemp("out")
    done = in_process(
        "bench", "demo", "--draft-depth", "2,auto", *QUICK, "--against", "mlx-lm", "--out", folder, "--json"
    )
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["cases"] == json.loads((folder / "bench.json").read_text())["cases"]
    return read_receipt(folder / "bench.json"), folder


def test_a_small_bench_reports_every_arm(measured: tuple[Receipt, Path]) -> None:
    """Otherwise nobody can tell what speculation gains on their machine."""
    found, _ = measured
    (only,) = found.cases
    assert [arm.name for arm in only.arms] == ["mlx-lm", "mlx-lm assisted", "depth 0", "depth 2", "auto"]
    assert found.complete
    assert all(arm.same_as_reference for arm in only.arms if arm.samples)
    assert all(arm.certificate is not None and arm.certificate.divergences == 0 for arm in only.arms if arm.samples)
    plain, deep = only.arms[2:4]
    figures = only.figures(deep)
    assert figures.tokens_per_round is not None
    assert figures.tokens_per_round > 1
    assert only.figures(plain).tokens_per_round == 1
    assert deep.profile is not None
    assert deep.profile.other_s <= 0.3 * deep.profile.decode_s
    assert found.sidecar is not None
    assert found.sidecar.sha256 == sha256(demo_sidecar().read_bytes()).hexdigest()
    assert found.sidecar.conventions["concat_order"] == "embedding_first"
    assert (found.shard, found.backend) == ("", "")


def test_a_peer_that_cannot_assist_says_why(measured: tuple[Receipt, Path]) -> None:
    """A missing arm would read as a peer that has nothing to offer."""
    assisted = measured[0].cases[0].arms[1]
    assert assisted.samples == ()
    assert assisted.skipped is not None
    assert "caches" in assisted.skipped


def test_the_report_is_written_beside_it(measured: tuple[Receipt, Path]) -> None:
    _, folder = measured
    assert "<svg" in (folder / "bench.html").read_text(encoding="utf-8")
    assert "| depth 2 |" in (folder / "bench.md").read_text(encoding="utf-8")
    assert sorted(file.name for file in folder.iterdir()) == ["bench.html", "bench.json", "bench.md"]


def test_every_option_of_run_is_taken_or_refused_in_words() -> None:
    """A flag that `run` knows and `bench` drops would measure something else than what is run."""
    missing = set(signature(run_command).parameters) - set(signature(bench_command).parameters) - NOT_OF_DECODING
    # the same under bench's name
    assert missing == {"max_tokens"}
    done = in_process("bench", "demo", "--max-tokens", "1")
    assert "--tokens" in done.stderr
    for refused, says in (
        (("--stop", "x"), "full length"),
        (("--chat",), "prompts one by one"),
        (("--allow-plain",), "measures nothing"),
        (("--split", "4,4"), "--peers"),
        (("--save-depth", "--draft", "ngram"), "of a draft head"),
        (("--suite", "--tokens", "50"), "cases of its own"),
        (("--suite", "--prompts", "code"), "cases of its own"),
        (("--suite", "--context", "50"), "cases of its own"),
        (("--suite", "--temperature", "1"), "cases of its own"),
        (("--against", "mlxlm"), "--against': 'mlxlm' is not one of mlx-lm, transformers"),
    ):
        done = in_process("bench", "demo", *refused)
        assert done.code == 2, refused
        assert says in done.stderr


def test_a_context_is_bounded_where_a_model_states_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is made first: the machine would be out of memory before anything could be refused."""
    monkeypatch.setattr("skulk_core.models.loading.LoadedModel.context_tokens", None)
    done = in_process("bench", "demo", "--draft-depth", "0", "--context", "1000000000")
    done.assert_fails(2, "--context", "over 1048576")


def test_figures_are_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure whose end is cut off is another figure."""
    monkeypatch.setenv("COLUMNS", "40")
    show_receipt(receipt())
    words = capsys.readouterr().out.split()
    for table in (speed_table(case()), work_table(case()), costs_table(case())):
        assert not [word for row in table.rows for cell in row for word in cell.split() if word not in words]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--draft-depth", "1,x", "whole numbers"),
        ("--draft-depth", "-1", "at least 0"),
        ("--tokens", "1", "at least 2"),
        ("--runs", "0", "at least 1"),
        ("--context", "9", "a prompt alone"),
        ("--tokens", "5000", "longest prompt are over 4096, for which the model was made"),
        # refused before a text of so many tokens is made, and without the advice to raise it
        ("--context", "1000000000", "after it are over 4096, for which the model was made"),
        ("--prompts", "/nowhere/prompts.txt", "No such file"),
        ("--against-draft", "x", "--against"),
        ("--temperature", "-1", "--temperature"),
    ],
)
def test_what_cannot_be_measured_is_refused(option: str, value: str, says: str) -> None:
    done = in_process("bench", "demo", "--draft-depth", "1", option, value)
    assert done.code != 0
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "raise --context" not in done.stderr


def test_settings_that_mean_other_things_to_others_are_refused_against_them() -> None:
    done = in_process("bench", "demo", *QUICK, "--against", "mlx-lm", "--presence-penalty", "1")
    assert done.code == 2
    assert "penalties" in done.stderr


def test_a_bare_draft_depth_is_the_default_sweep() -> None:
    assert complete(["bench", "demo", "--draft-depth", "--tokens", "8"], OPTIONAL_VALUES)[2] == "--draft-depth="
    from cli.bench_options import DEFAULT_SWEEP, read_depths

    assert read_depths("") == read_depths(DEFAULT_SWEEP)
    assert read_depths("").fixed == (0, 1, 2, 3, 4)
    assert read_depths("auto").fixed == (0,)


def test_a_model_without_a_head_is_no_benchmark_of_one(plain_llama: Path) -> None:
    done = in_process("bench", plain_llama, "--draft-depth", "2", *QUICK)
    assert done.code == 1
    assert "no draft head" in done.stderr


def test_transformers_beside_ours(plain_llama: Path) -> None:
    """A peer's figures without its version, or of another text, prove nothing."""
    asked = ("--draft-depth", "0", *QUICK, "--raw", "--against", "transformers", "--no-certify", "--json")
    done = in_process("bench", plain_llama, *asked)
    assert done.code == 0, done.stderr
    (only,) = done.answer["cases"]
    assert [arm["name"] for arm in only["arms"]] == ["transformers", "transformers + lookup", "depth 0"]
    assert all(arm["samples"] and arm["same_as_reference"] for arm in only["arms"])
    assert done.answer["versions"]["torch"]
    assert done.answer["versions"]["transformers"]


def test_prompt_lookup_and_drawn_tokens_are_measured_too() -> None:
    drawn = (
        "--temperature",
        "0.7",
        "--top-p",
        "0.9",
        "--repetition-penalty",
        "1.1",
        "--seed",
        "5",
        "--accept",
        "token",
    )
    done = in_process("bench", "demo", "--draft", "ngram", "--draft-depth", "2", *QUICK, *drawn, "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sidecar"]["name"] == "prompt lookup"
    (only,) = found["cases"]
    assert only["sampling"]["temperature"] == 0.7
    assert (only["sampling"]["seed"], only["sampling"]["accept"]) == (5, "token")
    assert only["exactness"] == "distribution"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_writes_what_there_is(skulk: Program, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """An hour of measuring would be lost: to Ctrl-C, to a batch system's limit."""
    folder = tmp_path / "out"
    terminal = OnTerminal(
        skulk, "bench", "demo", "--draft-depth", "1", "--tokens", "400", "--runs", "500", "--out", folder, COLUMNS="120"
    )
    terminal.wait_for("texts")
    terminal.process.send_signal(sent)
    done = terminal.finish()
    assert done.code == code, done.stderr
    assert "Traceback" not in done.stderr
    found = read_receipt(folder / "bench.json")
    assert not found.complete
    assert len(found.cases) == 1
    assert "Incomplete" in (folder / "bench.html").read_text(encoding="utf-8")
    assert "INCOMPLETE" in done.stdout


def test_an_error_keeps_what_was_measured_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last case of a suite would take the others with it; a machine that goes down, everything."""
    known = [SuiteCase(f"case {number}", named_set("docs"), 0.0, 4, 1) for number in range(2)]
    monkeypatch.setattr("skulk_core.bench.suite.suite", lambda *_: known)
    before: list[Receipt] = []

    def failing_second(bench: Bench, one: Measurement, watch: Watch) -> None:
        if one.run.workload.name == "case 1":
            before.append(read_receipt(tmp_path / "bench.json"))
            raise RingChanged(3, 2)
        measure(bench, one, watch)

    monkeypatch.setattr("skulk_core.bench.measure.measure", failing_second)
    done = in_process("bench", "demo", "--suite", "--draft-depth", "1", "--out", tmp_path)
    assert done.code == 1
    assert "of 2 instead of 3 hosts" in done.stderr
    found = read_receipt(tmp_path / "bench.json")
    for one in (*before, found):
        assert not one.complete
        assert [case.name for case in one.cases] == ["case 0"]
        assert all(arm.samples for arm in one.cases[0].arms)
    assert found.ended_by == "hosts were lost for good: 2 of 3 are left"
    for shown in (done.stdout, (tmp_path / "bench.html").read_text(), (tmp_path / "bench.md").read_text()):
        assert found.ended_by in " ".join(shown.split())


def test_a_part_replaces_no_whole_benchmark(tmp_path: Path) -> None:
    """Ctrl-C in the first second of another run would cost the benchmark of an hour."""
    whole, part = receipt(), receipt(complete=False, ended_by="it was interrupted")
    nothing = replace(part, cases=(case(arms=(replace(case().arms[1], samples=()),)),))
    out = OutFolder(tmp_path)
    assert out.write(part)[0].name == "bench.json"
    assert OutFolder(tmp_path).write(nothing) == []
    assert read_receipt(tmp_path / "bench.json") == part
    out.write(whole)
    assert OutFolder(tmp_path).write(nothing) == []
    again = OutFolder(tmp_path)
    assert again.write(part)[0].name == "bench.incomplete.json"
    assert read_receipt(tmp_path / "bench.json") == whole
    assert read_receipt(tmp_path / "bench.incomplete.json") == part
    # what was written on the way goes with the whole
    again.write(whole)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bench.html", "bench.json", "bench.md"]


def test_figures_are_kept_where_a_report_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that is gone, or a program updated meanwhile, would cost everything that was measured."""

    def no_template(_: Receipt) -> str:
        raise TemplateNotFound("bench_report.html.j2")

    monkeypatch.setattr("skulk_core.bench.report.html_report", no_template)
    with pytest.raises(TemplateNotFound):
        OutFolder(tmp_path).write(receipt())
    assert read_receipt(tmp_path / "bench.json") == receipt()


def test_the_best_depth_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = in_process(
        "tune", "demo", "--draft-depth", "1", "--tokens", "12", "--runs", "1", "--prompts", "docs", "--json"
    )
    assert done.code == 0, done.stderr
    (card,) = read_cards(tmp_path / "skulk" / "catalog.yaml")
    assert card.model == "demo"
    assert card.default_depth in [arm["depth"] for arm in done.answer["cases"][0]["arms"]]
    assert "on the card of demo" in done.stderr


def test_what_is_kept_is_the_best_depth_and_what_it_was_measured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run would take another depth than was the fastest, or find no head to draft so deep with."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    model, head = demo_copy(tmp_path / "model"), demo_sidecar()
    asked = Choice(str(model), str(head), 3, "float32", "8bit", ["norm_offset=1"], False)
    assert "give --convention norm_offset=1 to `skulk run` too" in save_best(asked, receipt())
    (card,) = read_cards(tmp_path / "skulk" / "catalog.yaml")
    assert card == Card(
        model=str(model.resolve()), default_depth=3, sidecar=str(head), dtype="float32", head_precision="8bit"
    )
    found = in_process("run", model, "x", "--max-tokens", "4", "--json").answer
    assert found["stats"]["draft_depth"] == 3
    # what the command line did not say stays
    save_best(replace(asked, sidecar=None, dtype="auto", head_precision="auto"), receipt(hosts=2))
    assert read_cards(tmp_path / "skulk" / "catalog.yaml") == (replace(card, depth_by_hosts=((2, 3),)),)


def test_the_sweep_that_was_asked_for_is_the_suites_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same list as the default would lose a depth without a word."""
    wishes: list[Wish] = []
    monkeypatch.setattr("cli.bench.run_bench", lambda wish, *_: wishes.append(wish))
    for said in (("--draft-depth", "0,1,2,3,4,auto"), ("--draft-depth", ""), ()):
        assert in_process("bench", "demo", "--suite", *said).code == 0
    assert [wish.depths.fixed for wish in wishes] == [(0, 1, 2, 3, 4), (0, 1, 2, 4), (0, 1, 2, 4)]


def test_every_option_reaches_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is read and dropped would be thought to have been measured with."""
    wishes: list[Wish] = []
    monkeypatch.setattr("cli.bench.run_bench", lambda wish, *_: wishes.append(wish))
    drawing = ("--temperature", "0.5", "--top-p", "0.9", "--top-k", "40", "--min-p", "0.1", "--seed", "7")
    penalties = ("--repetition-penalty", "1.1", "--presence-penalty", "0.2", "--frequency-penalty", "0.3")
    how = ("--logit-bias", "5=-2", "--accept", "token", "--raw", "--no-certify", "--context", "99", "--prompts", "code")
    head = ("--sidecar", "me/head", "--dtype", "bfloat16", "--head-precision", "8bit", "--convention", "norm_offset=1")
    ring = ("--peers", "local:2", "--shard", "tensor", "--backend", "nccl", "--link", "eth9", "--push")
    more = ("--allow-public-link", "--split", "3,5", "--tokens", "33", "--runs", "4", "--draft-depth", "2")
    assert in_process("bench", "demo", *drawing, *penalties, *how, *head, *ring, *more).code == 0
    assert in_process("bench", "demo", "--exactness", "strict", "--draft", "ngram").code == 0
    assert in_process("bench", "demo", "--against", "mlx-lm", "--against-draft", "other").code == 0
    first, second, third = wishes
    assert first.settings == SamplingSettings(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias=((5, -2.0),),
        seed=7,
        accept=AcceptRule.TOKEN,
    )
    assert first.choice == Choice("demo", "me/head", 2, "bfloat16", "8bit", ["norm_offset=1"], False, "head")
    assert first.over == Spread("local:2", "tensor", "3,5", "nccl", ("eth9",), True, True)
    assert (first.raw, first.certify, first.context, first.prompts) == (True, False, 99, "code")
    assert (first.num_tokens, first.num_turns, first.depths.fixed) == (33, 4, (0, 2))
    assert (second.exactness, second.choice.draft) == (Exactness.STRICT, "ngram")
    assert (third.against, third.against_draft) == ("mlx-lm", Path("other"))


def test_what_is_asked_for_is_what_a_receipt_says() -> None:
    """Of what reaches the measurement nothing may be lost on the way to its reader."""
    drawn = ("--temperature", "0.7", "--top-k", "40", "--min-p", "0.01", "--logit-bias", "5=-2", "--seed", "5")
    asked = ("--draft-depth", "1", "--tokens", "4", "--runs", "1", "--raw", "--head-precision", "8bit")
    done = in_process("bench", "demo", *asked, *drawn, "--json")
    assert done.code == 0, done.stderr
    (only,) = done.answer["cases"]
    said = {name: only["sampling"][name] for name in ("temperature", "top_k", "min_p", "logit_bias", "seed")}
    assert said == {"temperature": 0.7, "top_k": 40, "min_p": 0.01, "logit_bias": {"5": -2.0}, "seed": 5}
    assert only["prompts"]["chat_template"] is False
    assert done.answer["sidecar"]["precision"] == "8bit"
    strict = in_process("bench", "demo", *asked, "--exactness", "strict", "--json")
    assert strict.answer["cases"][0]["exactness"] == "strict"


def test_a_recorded_command_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt is published: whose machines and clients these are is nobody's business."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "model").mkdir(parents=True)
    (tmp_path / "8bit").mkdir()
    for said, kept in (
        ("bench acme/model --peers ana@10.0.0.2,mini,local:2", "bench PATH --peers HOST,HOST,local:2"),
        ("bench --raw acme --peers=mini --link mini=10.0.0.3", "bench --raw PATH --peers=HOST --link LINK"),
        ("bench demo --sidecar=./clients/acme/head --out acme", "bench demo --sidecar=PATH --out PATH"),
        ("bench me/A --sidecar me/head --prompts acme.txt", "bench me/A --sidecar me/head --prompts PATH"),
        ("bench me/A --head-precision 8bit --prompts docs -q", "bench me/A --head-precision 8bit --prompts docs -q"),
        ("bench ~/acme/model --link=eth1 --against-draft x", "bench PATH --link=LINK --against-draft PATH"),
        ("tune clients/acme/x --peers= --draft-depth 1,2", "tune PATH --peers= --draft-depth 1,2"),
    ):
        assert recorded_command(said.split()) == f"skulk {kept}"


def test_flags_of_a_command_line_are_known() -> None:
    """What follows one that is not known would be taken for its value."""
    hints = signature(bench_command, eval_str=True).parameters
    names = {
        name for name, one in hints.items() if one.annotation.__origin__ is bool or one.annotation.__args__ == (bool,)
    }
    hidden = {"chat", "allow_plain"}
    flags = {f"--{name.removesuffix('_output').replace('_', '-')}" for name in names - hidden}
    assert flags == {flag for flag in FLAGS if flag.startswith("--")} - {"--no-certify"}


def write(folder: Path, name: str, one: Receipt) -> Path:
    file = folder / name
    file.write_text(one.to_json(), encoding="utf-8")
    return file


def test_two_receipts_are_compared(tmp_path: Path) -> None:
    """Speeds of two machines side by side would be read as a gain of one program."""
    first = write(tmp_path, "a.json", receipt())
    other = receipt(
        machine=replace(MACHINE, processor="Another CPU"),
        cases=(case(prompts=replace(PROMPTS, sha256="b" * 64), arms=case().arms[1:]),),
    )
    done = in_process("bench", "compare", first, write(tmp_path, "b.json", other), "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    said = " ".join(found["differences"])
    assert "prompts differ" in said
    assert "machines differ" in said
    assert all(one["speed"]["least"] <= one["speed"]["median"] <= one["speed"]["greatest"] for one in found["ratios"])
    assert {one["gain"] for one in found["ratios"]} == {1.0}
    assert found["unmatched"] == ["docs, 200 tokens, temperature 0: mlx-lm"]
    three = (StageRecord(0, 3, 1), StageRecord(3, 8, 1))
    ring = receipt(hosts=2, stages=three, link_rate_mbps=100.0, shard="pipeline", backend="ring")
    even = (StageRecord(0, 4, 1), StageRecord(4, 8, 1))
    assert ring.sidecar is not None
    wired, turned = (replace(ring.sidecar, conventions={"concat_order": order}) for order in ("a", "b"))
    for before, after, says in (
        (ring, replace(ring, link_rate_mbps=50.0), "Links: 100 Mbit/s and 50 Mbit/s."),
        (ring, replace(ring, link_rate_mbps=None), "Links: 100 Mbit/s and as they are."),
        (ring, replace(ring, stages=even), "Layers of the hosts: 0 to 3 + 3 to 8 and 0 to 4 + 4 to 8."),
        (ring, replace(ring, shard="tensor"), "How the model was divided: pipeline and tensor."),
        (ring, replace(ring, backend="jaccl"), "What carried rows: ring and jaccl."),
        (ring, receipt(), "Hosts: 2 and 1."),
        (
            replace(ring, sidecar=wired),
            replace(ring, sidecar=turned),
            "The draft head was wired in other ways (concat_order: a and b): acceptance depends on them.",
        ),
    ):
        assert says in compare(before, after).differences
    # an arm without a text of a prompt that the other has
    halves = [
        replace(case(), arms=tuple(replace(one, samples=one.samples[at::2]) for one in case().arms)) for at in (0, 1)
    ]
    apart = compare(*(receipt(cases=(half,)) for half in halves))
    assert apart.ratios == ()
    assert len(apart.unmatched) == len(case().arms)
    # a receipt of an earlier version says nothing of wiring, and names the same head
    assert compare(ring, replace(ring, sidecar=wired)).differences == compare(ring, ring).differences
    shown = in_process("bench", "compare", first, first)
    assert "no clear difference" in shown.stdout


def test_a_comparison_needs_two_receipts(tmp_path: Path) -> None:
    first = write(tmp_path, "a.json", receipt())
    for option in (("--suite",), ("--tokens", "50"), ("--out", tmp_path), ("--draft-depth", "1")):
        in_process("bench", "compare", first, first, *option).assert_fails(2, option[0], "a comparison is printed")
    for files in ((), (first,), (first, first, first)):
        done = in_process("bench", "compare", *files)
        assert done.code == 2
        assert "two files" in done.stderr
    (tmp_path / "c.json").write_text("{}")
    done = in_process("bench", "compare", first, tmp_path / "c.json")
    assert done.code == 1
    assert "kind" in done.stderr
    assert in_process("bench", "demo", first).code == 2


def test_a_suite_is_of_many_kinds() -> None:
    from skulk_core.bench.suite import suite

    cases = suite(2)
    assert {case.temperature for case in cases} == {0.0, 0.7}
    assert {case.num_tokens for case in cases} == {200, 1000}
    assert {"prose", "code", "chat", "list"} <= {case.prompts.name for case in cases}
    assert {case.context for case in cases} == {None, 512, 2048}
    assert len({case.name for case in cases}) == len(cases)


def test_a_suite_leaves_out_what_a_model_has_no_room_for(
    plain_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of a short context would get no picture at all, for two cases of a dozen."""
    known = [SuiteCase("short", named_set("docs"), 0.0, 4, 1), SuiteCase("long", named_set("docs"), 0.0, 9999, 1)]
    monkeypatch.setattr("skulk_core.bench.suite.suite", lambda *_: known)
    done = in_process("bench", plain_llama, "--suite", "--draft-depth", "0", "--json")
    assert done.code == 0, done.stderr
    assert "left out" in done.stderr
    assert [case["name"] for case in done.answer["cases"]] == ["short"]
    assert done.answer["left_out"] == ["long"]
    monkeypatch.setattr("skulk_core.bench.suite.suite", lambda *_: known[1:])
    in_process("bench", plain_llama, "--suite", "--draft-depth", "0").assert_fails(2, "--suite", "every case")
