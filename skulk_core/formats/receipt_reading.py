"""Reading a bench receipt back, as strictly as it was written: the figures must be those of the samples."""

from pathlib import Path
from typing import Any

from skulk_core.errors import FormatError
from skulk_core.formats.json_file import JsonSection, read_json
from skulk_core.formats.receipt import KIND, SCHEMA, Counts, Figures, Receipt
from skulk_core.formats.typed_json import decode, encode

_SAME = 1e-9


def read_receipt(path: Path) -> Receipt:
    """Read a receipt.

    Raises `FileError` if it cannot be read, `FormatError` naming the key if it is none, of another schema, or if its
    figures are not what its samples give.
    """
    top = read_json(path)
    _check_kind(top)
    figures: list[tuple[str, Any]] = []
    data = {key: value for key, value in top.data.items() if key not in ("kind", "schema")}
    # `figures` are no field: they are taken out here, and compared below
    if isinstance(data.get("cases"), list):
        data["cases"] = [_without_figures(case, f"cases[{at}]", figures) for at, case in enumerate(data["cases"])]
    receipt = decode(Receipt, path, "", data)
    _check(path, receipt)
    expected = [(case, arm) for case in receipt.cases for arm in case.arms]
    for (trail, found), (case, arm) in zip(figures, expected, strict=True):
        decode(Figures, path, trail, found)
        given = encode(case.figures(arm))
        # an older program knew fewer figures
        if not _alike(found, {name: given[name] for name in found}):
            raise FormatError(path, trail, "is not what the samples give")
    return receipt


def _check_kind(top: JsonSection) -> None:
    if top.text("kind") != KIND:
        raise top.error("kind", f"is {top.data['kind']!r}: not a receipt of `skulk bench`")
    if (schema := top.integer("schema", 1)) != SCHEMA:
        raise top.error("schema", f"is {schema}; this program reads schema {SCHEMA}")


def _check(path: Path, receipt: Receipt) -> None:
    """Refuse values of the right kind that cannot be: everything below divides by some of them."""
    for at, case in enumerate(receipt.cases):
        names = [arm.name for arm in case.arms]
        if len(set(names)) != len(names):
            raise FormatError(path, f"cases[{at}].arms", "has two arms of one name")
        for number, arm in enumerate(case.arms):
            trail = f"cases[{at}].arms[{number}]"
            if arm.depth is not None and arm.depth < 0:
                raise FormatError(path, f"{trail}.depth", "is below 0")
            for place, sample in enumerate(arm.samples):
                if sample.tokens < 1 or sample.decode_s <= 0 or sample.prefill_s < 0:
                    raise FormatError(path, f"{trail}.samples[{place}]", "has no tokens, or took no time")
            certificate, counts = arm.certificate, arm.counts
            if arm.is_ours and arm.failed is None and certificate is not None and not certificate.holds:
                raise FormatError(path, f"{trail}.failed", "is null, though its certificate does not hold")
            if counts is not None and not _possible(counts):
                raise FormatError(path, f"{trail}.counts", "cannot be: more accepted than judged, or other lengths")


def _possible(counts: Counts) -> bool:
    pairs = list(zip(counts.judged_at, counts.accepted_at, strict=False))
    alike = len(counts.judged_at) == len(counts.accepted_at) and counts.rounds >= 0
    return alike and all(0 <= accepted <= judged for judged, accepted in pairs)


def _without_figures(case: Any, trail: str, found: list[tuple[str, Any]]) -> Any:
    if not isinstance(case, dict) or not isinstance(case.get("arms"), list):
        return case
    arms = []
    for number, arm in enumerate(case["arms"]):
        if isinstance(arm, dict) and "figures" in arm:
            found.append((f"{trail}.arms[{number}].figures", arm["figures"]))
            arm = {key: value for key, value in arm.items() if key != "figures"}
        elif isinstance(arm, dict):
            found.append((f"{trail}.arms[{number}].figures", None))
        arms.append(arm)
    return {**case, "arms": arms}


def _alike(ours: Any, theirs: Any) -> bool:
    """Equal but for the last digits of numbers."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_alike(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return abs(ours - theirs) <= _SAME * max(abs(ours), abs(theirs))
    return bool(ours == theirs)
