"""The object of `--json` is read by programs: what its page says must be what is printed."""

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
