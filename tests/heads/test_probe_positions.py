"""Which position a chain of an assistant's drafts has is found by measuring, whichever it is; a tie is told as one."""

from collections.abc import Callable, Iterator
from typing import Any

import assistants
import numpy as np
import pytest

from skulk_core.heads import own_text, probe, query_only
from skulk_core.heads.files import assistant_head
from skulk_core.heads.own_text import OwnText
from skulk_core.heads.verdict import Candidate, Probe, told_by_texts
from skulk_core.models.loading import LoadedModel
from skulk_core.types import ConcatOrder, Conventions, HiddenTap, PositionRule

LAST, BEFORE = (
    Conventions(
        norm_offset=0.0,
        concat_order=ConcatOrder.EMBEDDING_FIRST,
        hidden_tap=HiddenTap.POST_NORM,
        position_rule=rule,
    )
    for rule in (PositionRule.LAST_COMMITTED, PositionRule.BEFORE_LAST)
)


@pytest.fixture(scope="module")
def _texts() -> Iterator[None]:
    """What the model writes is the same every time, and written once here."""
    written: dict[tuple[int, ...], list[OwnText]] = {}

    def texts(model: LoadedModel, progress: Callable[[], None], *num_tokens: int) -> list[OwnText]:
        if num_tokens not in written:
            written[num_tokens] = list(own_text.write_texts(model, progress, *num_tokens))
        return written[num_tokens]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "write_texts", texts)
        yield


def measured(monkeypatch: pytest.MonkeyPatch, reference: Conventions) -> Probe:
    monkeypatch.setattr(probe, "released_conventions", lambda *_: reference)
    return probe.probe(assistants.target(), assistant_head(assistants.ASSISTANT))


@pytest.mark.usefixtures("_texts")
@pytest.mark.parametrize("reference", [LAST, BEFORE], ids=["released", "against-the-release"])
def test_the_position_that_it_was_trained_at_is_found(reference: Conventions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the guess decides, and is kept as if it had been measured."""
    found = measured(monkeypatch, reference)
    assert found.picked is not None
    assert found.picked.conventions.position_rule == PositionRule.LAST_COMMITTED
    assert found.alike == (found.picked,)
    assert found.num_texts == 16


@pytest.mark.usefixtures("_texts")
def test_a_head_made_for_the_other_position_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the measurement says the same of every head. This one turns its queries a position further."""
    at = query_only.Turns.at

    def further(self: query_only.Turns, num_rows: int, position: int) -> Any:
        return at(self, num_rows, position + 1)

    monkeypatch.setattr(query_only.Turns, "at", further)
    found = measured(monkeypatch, LAST)
    assert found.picked is not None
    assert found.picked.conventions.position_rule == PositionRule.BEFORE_LAST
    assert found.alike == (found.picked,)


def test_texts_that_disagree_decide_nothing() -> None:
    """A lead in half of the texts and as much of a lag in the others is noise: the reference is taken, and is a tie."""
    candidates = Candidate(LAST, 0.7, 0.7), Candidate(BEFORE, 0.7, 0.7)
    tie = Probe(candidates, candidates[0], candidates, 300, 0.1)
    noise = np.tile([0.3, -0.25], 8)
    found = told_by_texts(tie, {LAST: np.full(16, 2.0), BEFORE: 2.0 + noise}, LAST)
    assert (found.picked, found.alike, found.num_texts) == (candidates[0], candidates, 16)
    found = told_by_texts(tie, {LAST: np.full(16, 2.0), BEFORE: 2.2 + noise}, LAST)
    assert (found.picked, found.alike) == (candidates[1], candidates[1:])
