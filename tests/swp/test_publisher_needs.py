"""What `swp doctor` finds: only what publishing cannot do without makes it fail."""

from pathlib import Path

import pytest
from publishing import TOKEN, desk

from swp.doctor import examine


def test_without_torch_heads_that_are_not_quantised_can_still_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swp.doctor.find_spec", lambda _: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with desk(tmp_path, monkeypatch) as made:
        report = examine(made.writer, "org", tmp_path)
    found = {finding.name: finding for finding in report.findings}
    assert report.ok
    assert "pip install 'torch>=" in (found["torch"].advice or "")
    assert TOKEN not in str(report)
