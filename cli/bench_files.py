"""`--out DIR`: a benchmark as JSON, as Markdown, and as a page that stands alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from skulk_core.errors import FileError
from skulk_core.runtime.userfiles import write_atomically

if TYPE_CHECKING:
    from skulk_core.formats.receipt import Receipt

JSON_FILE, MARKDOWN_FILE, HTML_FILE = "bench.json", "bench.md", "bench.html"


def prepare_folder(folder: Path) -> None:
    """Make the folder before anything is measured. Raises `FileError` if files cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(folder, f"cannot be made: {error.strerror or error}") from error
    write_atomically(folder / ".skulk-bench", "")
    (folder / ".skulk-bench").unlink(missing_ok=True)


def write_files(folder: Path, receipt: "Receipt") -> list[Path]:
    """The three files. Raises `FileError`."""
    # the figures first: nothing that can go wrong with a report may cost an hour of measuring
    write_atomically(folder / JSON_FILE, receipt.to_json())
    from skulk_core.bench.report import html_report, markdown_report

    write_atomically(folder / MARKDOWN_FILE, markdown_report(receipt))
    write_atomically(folder / HTML_FILE, html_report(receipt))
    return [folder / name for name in (JSON_FILE, MARKDOWN_FILE, HTML_FILE)]
