"""The object of `--json` is read by programs: what its page says must be what is printed."""

import json

import pytest
from cli_runner import in_process
from run_json_page import assert_as_documented

SHORT = ("run", "demo", "Return the number", "--json", "--max-tokens")


@pytest.mark.parametrize(
    "asked",
    [
        ("12", "--certify"),
        ("12", "--draft-depth", "auto", "--seed", "1", "--temperature", "0.7"),
        ("1",),
        ("3", "--draft", "ngram"),
        ("3", "--draft-depth", "0"),
    ],
    ids=" ".join,
)
def test_every_field_is_on_its_page(asked: tuple[str, ...]) -> None:
    assert_as_documented(in_process(*SHORT, *asked).answer)


def test_a_banned_token_is_json_of_any_reader() -> None:
    """JSON has no infinity."""
    printed = in_process(*SHORT, "2", "--logit-bias", "5=-inf", "--logit-bias", "6=1.5").stdout

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    answer = json.loads(printed, parse_constant=refuse)
    assert answer["sampling"]["logit_bias"] == [[5, "-inf"], [6, 1.5]]
