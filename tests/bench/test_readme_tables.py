"""README's results are those of its receipts."""

import subprocess
import sys
from pathlib import Path

import pytest
from receipts import receipt

from skulk_core.bench.readme import with_results
from skulk_core.errors import FileError, FormatError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_readme_has_the_figures_of_its_receipts() -> None:
    """Figures that were edited by hand are nobody's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- receipts: depths " in text, "README shows no measured table"
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "readme", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "view", ["command", "depths", "facts", "cases", "split", "costs", "prompt", "links", "sidecar"]
)
def test_a_changed_figure_is_written_over(tmp_path: Path, view: str) -> None:
    (tmp_path / "a.json").write_text(receipt().to_json(), encoding="utf-8")
    page = f"before\n<!-- receipts: {view} a.json -->\n| 99.9 |\n<!-- /receipts -->\nafter\n"
    made = with_results(tmp_path / "README.md", page, tmp_path)
    assert "99.9 |" not in made
    assert made.startswith("before\n")
    assert made.endswith("<!-- /receipts -->\nafter\n")
    assert with_results(tmp_path / "README.md", made, tmp_path) == made


def test_the_depths_are_those_of_the_receipt(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(receipt().to_json(), encoding="utf-8")
    made = with_results(tmp_path / "x", "<!-- receipts: depths a.json -->\n<!-- /receipts -->", tmp_path)
    row = next(line for line in made.splitlines() if line.startswith("| depth 3 "))
    assert "| 332.9 |" in row
    assert "| 1.92 |" in row


def test_the_command_is_that_of_the_receipt(tmp_path: Path) -> None:
    """Whoever repeats it would measure something else than the table shows."""
    said = "skulk bench demo --runs 5 --out mine -q"
    (tmp_path / "a.json").write_text(receipt(command=said).to_json(), encoding="utf-8")
    made = with_results(tmp_path / "x", "<!-- receipts: command a.json -->\n<!-- /receipts -->", tmp_path)
    assert made.splitlines()[1] == "    skulk bench demo --runs 5 --out DIR"


def test_a_table_without_its_receipt_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="none.json"):
        with_results(tmp_path / "x", "<!-- receipts: depths none.json -->\n<!-- /receipts -->", tmp_path)
    with pytest.raises(FormatError, match="no such view"):
        with_results(tmp_path / "x", "<!-- receipts: other none.json -->\n<!-- /receipts -->", tmp_path)
