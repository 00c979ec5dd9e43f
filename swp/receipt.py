"""A bench receipt that is to be quoted on a card: of the very sidecar that the card is of, and whole."""

from pathlib import Path

from skulk_core.errors import FormatError, OtherSidecar
from skulk_core.formats.provenance import Manifest
from skulk_core.formats.receipt import Receipt
from skulk_core.formats.receipt_reading import read_receipt
from skulk_core.formats.sidecar import SIDECAR_FILE


def quotable_receipt(path: Path) -> Receipt:
    """Read the receipt `path`.

    Raises `FileError` and `FormatError` as `read_receipt` does, and `FormatError` for one that has nothing to quote: it
    was interrupted, its links were made slower than they are, an arm's text was wrong, or there is no speed-up of a
    drafting arm.
    """
    receipt = read_receipt(path)
    where = "cases"
    if not receipt.complete:
        raise FormatError(path, "complete", f"is false: the benchmark ended early ({receipt.why_incomplete})")
    if made := receipt.links_made:
        field = "link_delay_ms" if receipt.link_delay_ms else "link_rate_mbps"
        raise FormatError(path, field, f"says that links were made to be {made}: nobody has such hosts")
    failed = [f"{case.name}, {arm.name}" for case in receipt.cases for arm in case.arms if arm.failed is not None]
    if failed:
        raise FormatError(path, where, f"holds texts that are not plain decoding's ({'; '.join(failed)})")
    drafted = [arm for case in receipt.cases for arm in case.arms if arm.is_ours and arm.depth != 0 and arm.samples]
    if not drafted or any(case.best is None for case in receipt.cases):
        raise FormatError(path, where, "has no arm with a draft head beside one of depth 0")
    return receipt


def require_sidecar(receipt: Receipt, manifest: Manifest) -> None:
    """Raise `OtherSidecar` unless the receipt was measured with the file that `manifest` lists."""
    ours = next(file.sha256 for file in manifest.files if file.name == SIDECAR_FILE)
    measured = "" if receipt.sidecar is None else receipt.sidecar.sha256
    if measured != ours:
        raise OtherSidecar(manifest.source_repo, measured, ours)


def best_depth(receipt: Receipt) -> int | None:
    """The depth to write into a catalog, of so many hosts as the receipt has.

    The fastest of the first case, 0 for plain decoding; None where it is auto.
    """
    best = receipt.cases[0].best
    assert best is not None, "a receipt with nothing to compare"
    return best.depth
