"""`--out DIR`: a benchmark as JSON, as Markdown, and as a page that stands alone."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from skulk_core.errors import FileError
from skulk_core.runtime.userfiles import write_atomically

if TYPE_CHECKING:
    from skulk_core.formats.receipt import Receipt

WHOLE, PART = "bench", "bench.incomplete"


@dataclass
class OutFolder:
    """Where one benchmark is written, again whenever there is more of it.

    What an earlier one left whole is replaced by a whole one only: a part is written beside it.
    """

    folder: Path
    _parts: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the folder before anything is measured. Raises `FileError` if files cannot be written there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(self.folder, f"cannot be made: {error.strerror or error}") from error
        write_atomically(self.folder / ".skulk-bench", "")
        (self.folder / ".skulk-bench").unlink(missing_ok=True)

    def write(self, receipt: "Receipt") -> list[Path]:
        """The three files; none for a benchmark without a figure where another one stands. Raises `FileError`."""
        before = self.folder / f"{WHOLE}.json"
        if before.exists() and not any(arm.samples for case in receipt.cases for arm in case.arms):
            return []
        stem = PART if not receipt.complete and _is_whole(before) else WHOLE
        files = [self.folder / f"{stem}.{suffix}" for suffix in ("json", "md", "html")]
        # the figures first: nothing that can go wrong with a report may cost an hour of measuring
        write_atomically(files[0], receipt.to_json())
        from skulk_core.bench.report import html_report, markdown_report

        write_atomically(files[1], markdown_report(receipt))
        write_atomically(files[2], html_report(receipt))
        if stem == PART:
            self._parts = files
        else:
            for part in self._parts:
                part.unlink(missing_ok=True)
        return files


def _is_whole(file: Path) -> bool:
    """Whether the file is there and does not say that it is a part: what cannot be read may be worth keeping."""
    try:
        top = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return not isinstance(top, dict) or top.get("complete") is not False
