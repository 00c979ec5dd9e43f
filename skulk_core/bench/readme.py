"""Result tables in a Markdown file, made from receipts, so that they cannot say what nobody measured.

A table stands between two lines of comment, and is written anew whenever its receipts are:

    <!-- receipts: depths demo.json -->
    …
    <!-- /receipts -->

`command` is the command that a receipt was made with, `depths` the table of its arms, `facts` its machine and versions
in a line, `cases` a line for each case, `split` where the time went, `costs` what the parts of a round cost, `prompt`
how long every arm took to read the prompts; `sidecar` compares acceptance in several receipts, `links` gains over links
of several hosts, a line for each.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from skulk_core.bench.report import in_markdown, markdown_table
from skulk_core.bench.tables import (
    Table,
    acceptance,
    cases_table,
    costs_table,
    links_table,
    median,
    number,
    speed_table,
    split_table,
    spread,
)
from skulk_core.errors import FormatError
from skulk_core.formats.receipt import Receipt
from skulk_core.formats.receipt_reading import read_receipt

_QUIET = ("-q", "--quiet")
_BLOCK = re.compile(
    r"(<!-- receipts: (?P<view>\S+)(?P<files>(?: \S+)+) -->\n)(?P<old>.*?)(<!-- /receipts -->)", re.DOTALL
)


def with_results(path: Path, text: str, receipts: Path) -> str:
    """``text`` of the file ``path`` with every table made from the receipts in the folder ``receipts``.

    Raises `FormatError` for a view that there is not, and as `read_receipt` does.
    """

    def block(found: re.Match[str]) -> str:
        view, names = found["view"], found["files"].split()
        if view not in _VIEWS:
            raise FormatError(path, found[1].strip(), f"no such view; there are {', '.join(_VIEWS)}")
        made = _VIEWS[view]([read_receipt(receipts / name) for name in names])
        return f"{found[1]}{made}\n{found[5]}"

    return _BLOCK.sub(block, text)


def _depths(receipts: Sequence[Receipt]) -> str:
    return "\n\n".join(markdown_table(speed_table(receipt.cases[0])) for receipt in receipts)


def _cases(receipts: Sequence[Receipt]) -> str:
    return "\n\n".join(markdown_table(cases_table(receipt)) for receipt in receipts)


def _split(receipts: Sequence[Receipt]) -> str:
    return "\n\n".join(markdown_table(split_table(receipt.cases[0])) for receipt in receipts)


def _prompt(receipts: Sequence[Receipt]) -> str:
    tables = []
    for receipt in receipts:
        case, rows = receipt.cases[0], []
        for arm in case.arms:
            if arm.samples:
                took, ratio = case.figures(arm).prefill_s, case.figures(arm).prefill_speedup
                rows.append((arm.name, median(took, 3), spread(took, 3), median(ratio, 2), spread(ratio, 2)))
        names = ("arm", "prompt s", "from–to", "× depth 0", "from–to")
        tables.append(markdown_table(Table(tuple((name, name != "arm") for name in names), tuple(rows))))
    return "\n\n".join(tables)


def _costs(receipts: Sequence[Receipt]) -> str:
    return "\n\n".join(markdown_table(costs_table(receipt.cases[0])) for receipt in receipts)


def _links(receipts: Sequence[Receipt]) -> str:
    return markdown_table(links_table(receipts))


def _facts(receipts: Sequence[Receipt]) -> str:
    lines = []
    for receipt in receipts:
        machine, case = receipt.machine, receipt.cases[0]
        versions = ", ".join(f"{name} {version}" for name, version in receipt.versions.items() if version)
        threads = f", BLAS {machine.blas}, {machine.blas_threads} threads" if machine.blas_threads else ""
        drift = "" if case.drift is None else f" Drift of the reference arm: {case.drift:+.0%}."
        said = (
            f"{machine.processor}, {machine.cores} cores, {machine.backend}{threads}; {receipt.model.name} in "
            f"{receipt.model.dtype}; {len(case.prompts.tokens)} prompts, {case.tokens} tokens, {case.turns} turns; "
            f"{versions}; {receipt.started[:10]}.{drift}"
        )
        lines.append(in_markdown(said))
    return "\n\n".join(lines)


def _sidecar(receipts: Sequence[Receipt]) -> str:
    rows = []
    for receipt in receipts:
        model, case = receipt.model, receipt.cases[0]
        for arm in case.arms:
            if arm.is_ours and arm.depth:
                figures = case.figures(arm)
                exact = "" if arm.certificate is None else str(arm.certificate.divergences)
                trunk = ", ".join(filter(None, (model.name, model.quantization, model.dtype)))
                rows.append((trunk, arm.name, acceptance(figures), number(figures.tokens_per_round, 2), exact))
    columns = (("trunk", False), ("arm", False), ("accepted", False), ("tokens a round", True))
    return markdown_table(Table((*columns, ("tokens that differ", True)), tuple(rows)))


def _command(receipts: Sequence[Receipt]) -> str:
    """As a block of code, with a folder of its reader's own and without what only makes it quiet."""
    lines = []
    for receipt in receipts:
        words = [word for word in shlex.split(receipt.command) if word not in _QUIET]
        words = ["DIR" if before == "--out" else word for before, word in zip(["", *words], words, strict=False)]
        lines.append(f"    {shlex.join(words)}")
    return "\n".join(lines)


_VIEWS: dict[str, Callable[[Sequence[Receipt]], str]] = {
    "command": _command,
    "depths": _depths,
    "cases": _cases,
    "split": _split,
    "prompt": _prompt,
    "costs": _costs,
    "links": _links,
    "facts": _facts,
    "sidecar": _sidecar,
}
