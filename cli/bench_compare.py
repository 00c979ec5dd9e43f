"""`skulk bench compare A.json B.json`: ratios with their spread, and what makes two benchmarks incomparable."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cli.render import out, show, visible
from skulk_core.bench.compare import Comparison, compare
from skulk_core.errors import OptionError
from skulk_core.formats.receipt_reading import read_receipt
from skulk_core.formats.typed_json import encode

COMPARE = "compare"
JSON_SCHEMA = 1


def compare_files(files: Sequence[Path], *, json_output: bool) -> None:
    """Compare two receipts. Raises `OptionError`, and as `read_receipt` does."""
    if len(files) != 2:
        said = " ".join(map(str, files))
        raise OptionError(COMPARE, said, "compares two files of --out: skulk bench compare A.json B.json")
    found = compare(*(read_receipt(file) for file in files))
    if json_output:
        out(json.dumps({"schema": JSON_SCHEMA, **encode(found)}) + "\n")
        return
    _show(found, [file.name for file in files])


def _show(found: Comparison, names: Sequence[str]) -> None:
    for difference in found.differences:
        out(visible(difference) + "\n")
    for case in dict.fromkeys(ratio.case for ratio in found.ratios):
        table = Table(title=Text(visible(case)), title_justify="left", box=SIMPLE_HEAD)
        columns = ("arm", f"{names[0]} tok/s", f"{names[1]} tok/s", "ratio", "nine tenths", "of speed-ups")
        for column in columns:
            table.add_column(Text(visible(column)), justify="left" if column == "arm" else "right")
        for one in (ratio for ratio in found.ratios if ratio.case == case):
            gain = "" if one.gain is None else f"{one.gain:.2f}"
            table.add_row(
                Text(visible(one.arm)),
                f"{one.first_tokens_per_s:.1f}",
                f"{one.second_tokens_per_s:.1f}",
                f"{one.speed.median:.2f}",
                f"{one.speed.least:.2f}–{one.speed.greatest:.2f}",
                gain,
            )
        show(table)
        unclear = [one.arm for one in found.ratios if one.case == case and not one.is_clear]
        if unclear:
            out(visible(f"no clear difference: {', '.join(unclear)}") + "\n")
    for name in found.unmatched:
        out(visible(f"only in one of them, or failed: {name}") + "\n")
