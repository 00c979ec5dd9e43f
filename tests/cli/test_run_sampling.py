"""Options that say how tokens are chosen, and what a run says of its exactness."""

import json
from pathlib import Path

import pytest
from cli_runner import in_process

SHORT = ("run", "demo", "The method returns", "--max-tokens", "50")


def test_a_seed_makes_a_temperature_repeatable() -> None:
    drawn = [in_process(*SHORT, "--json", "--temperature", "0.8", "--seed", seed).answer for seed in ("0", "0", "1")]
    assert drawn[0]["tokens"] == drawn[1]["tokens"] != drawn[2]["tokens"]
    assert drawn[0]["sampling"]["seed"] == 0
    assert drawn[0]["stats"]["accepted"] > 0


def test_without_a_seed_every_run_is_another_and_says_which() -> None:
    first, second = (in_process(*SHORT, "--json", "--temperature", "1.2").answer for _ in range(2))
    assert first["tokens"] != second["tokens"]
    again = in_process(*SHORT, "--json", "--temperature", "1.2", "--seed", str(first["sampling"]["seed"])).answer
    assert again["tokens"] == first["tokens"]


def test_penalties_at_every_depth() -> None:
    options = ("--json", "--repetition-penalty", "1.3", "--frequency-penalty", "0.2", "--logit-bias", "17=-inf")
    texts = [in_process(*SHORT, *options, "--draft-depth", depth).answer for depth in ("0", "2", "auto")]
    assert texts[0]["tokens"] == texts[1]["tokens"] == texts[2]["tokens"]
    assert texts[0]["tokens"] != in_process(*SHORT, "--json").answer["tokens"]
    assert texts[2]["stats"]["draft_depth"] == "auto"


def test_a_certificate() -> None:
    done = in_process(*SHORT, "--certify")
    assert done.code == 0
    assert "certificate: all 50 tokens are those of plain decoding" in done.stderr
    found = in_process(*SHORT, "--certify", "--json").answer["certificate"]
    assert (found["holds"], found["compared"], found["divergences"]) == (True, 50, [])


def test_strict_in_bfloat16_counts_its_extra_passes() -> None:
    answer = in_process(*SHORT, "--json", "--dtype", "bfloat16", "--exactness", "strict", "--certify").answer
    assert answer["stats"]["extra_passes"] > 0
    assert answer["certificate"]["holds"]


def test_prompt_lookup_needs_no_head() -> None:
    answer = in_process(*SHORT, "--json", "--draft", "ngram").answer
    assert answer["sidecar"] == "prompt lookup"
    assert answer["tokens"] == in_process(*SHORT, "--json", "--draft-depth", "0").answer["tokens"]


@pytest.mark.parametrize(
    "options", [("--temperature", "2", "--seed", "1"), ("--repetition-penalty", "1.1"), ("--frequency-penalty", "1")]
)
def test_prompt_lookup_in_a_text_that_does_not_repeat_itself(options: tuple[str, ...]) -> None:
    """What rounds cost is measured although nothing may ever be found."""
    answer = in_process(*SHORT, "--json", "--draft", "ngram", "--draft-depth", "auto", *options).answer
    assert len(answer["tokens"]) == 50
    assert answer["stats"]["draft_depth"] == "auto"


def test_a_seed_does_not_depend_on_timings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nobody chose a depth: costs differ from machine to machine, and from one hour to the next."""
    texts = []
    for name, round_s in (("slow", [1.0, 5.0, 9.0, 13.0]), ("fast", [1.0, 1.01, 1.02, 1.03])):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        monkeypatch.setattr("cli.depth._measured", lambda *_, round_s=round_s: tuple(round_s))
        drawn = ("--json", "--temperature", "0.9", "--seed", "5", "--draft", "ngram")
        texts += [in_process(*SHORT, *drawn, *more).answer for more in ((), ("--draft-depth", "auto"))]
    assert texts[0]["tokens"] == texts[2]["tokens"]
    assert [text["stats"]["draft_depth"] for text in texts] == [2, "auto", 2, "auto"]


def test_a_ban_is_json() -> None:
    done = in_process(*SHORT, "--json", "--logit-bias", "5=-inf", "--logit-bias", "6=1.5")
    assert "Infinity" not in done.stdout
    assert done.answer["sampling"]["logit_bias"] == [[5, "-inf"], [6, 1.5]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--draft-depth", "65"), "at most 64"),
        (("--temperature", "-1"), "--temperature -1"),
        (("--temperature", "nan"), "--temperature nan"),
        (("--top-p", "0"), "--top-p 0"),
        (("--top-k", "-2"), "--top-k -2"),
        (("--min-p", "1.5"), "--min-p 1.5"),
        (("--repetition-penalty", "0"), "--repetition-penalty 0"),
        (("--seed", "-1"), "--seed -1"),
        (("--logit-bias", "x"), "--logit-bias x"),
        (("--logit-bias", "3=y"), "--logit-bias 3=y"),
        (("--logit-bias", "-3=1"), "--logit-bias -3"),
        (("--draft-depth", "-1"), "--draft-depth -1"),
        (("--draft-depth", "deep"), "--draft-depth deep"),
        (("--temperature", "0.5", "--certify"), "--certify"),
        (("--temperature", "0.5", "--exactness", "strict"), "--exactness"),
        (("--draft", "ngram", "--sidecar", "x/y"), "--draft ngram"),
    ],
)
def test_what_means_nothing_is_refused(options: tuple[str, ...], says: str) -> None:
    done = in_process(*SHORT, *options)
    assert done.code == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_costs_are_measured_once(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every start of a large model waits for a measurement."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    in_process(*SHORT, "--draft-depth", "auto", "--quiet")
    file = f"{tmp_path}/skulk/costs.json"
    with open(file, encoding="utf-8") as stream:
        first = stream.read()
    (costs,) = json.loads(first)["round_s"].values()
    assert len(costs) == 7
    in_process(*SHORT, "--draft-depth", "auto", "--quiet")
    with open(file, encoding="utf-8") as stream:
        assert stream.read() == first
    with open(file, "w", encoding="utf-8") as stream:
        stream.write("{ not JSON")
    assert in_process(*SHORT, "--draft-depth", "auto", "--quiet").code == 0
