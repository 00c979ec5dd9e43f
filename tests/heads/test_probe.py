"""A sidecar that says nothing of itself is wired by measurement: the right way if there is one, and else not at all."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import demo_heads
import pytest
from demo import demo

from skulk_core.errors import ConventionsUnknown, HeadDoesNotFit, SidecarError
from skulk_core.heads import own_text, probe
from skulk_core.heads.files import sidecar_head
from skulk_core.heads.own_text import OwnText
from skulk_core.heads.verdict import Probe
from skulk_core.models.loading import LoadedModel, load
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

RELEASED = Conventions(norm_offset=1.0)
HIDDEN_FIRST = ConcatOrder.HIDDEN_FIRST
STORED = [
    RELEASED,
    Conventions(norm_offset=0.0),
    Conventions(norm_offset=1.0, concat_order=HIDDEN_FIRST),
    Conventions(norm_offset=0.0, concat_order=HIDDEN_FIRST),
]
BEFORE_NORMS = Conventions(norm_offset=1.0, hidden_tap=HiddenTap.PRE_NORM, chain_tap=ChainTap.PRE_NORM)

Measure = Callable[..., Probe]


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measure]:
    """Probes a head; what a model writes by itself is the same every time, and written once here."""
    folder = tmp_path_factory.mktemp("heads")
    written: dict[int, tuple[list[OwnText], Iterator[OwnText]]] = {}

    def texts(model: LoadedModel, progress: Callable[[], None]) -> Iterator[OwnText]:
        known, more = written.setdefault(id(model), ([], own_text.write_texts(model, progress)))
        yield from known
        for text in more:
            known.append(text)
            yield text

    def measured(weights: demo_heads.Weights, wired: Conventions, model: LoadedModel, **options: Any) -> Probe:
        file = demo_heads.write(folder / "mtp.safetensors", weights, wired)
        return probe.probe(model, sidecar_head(file), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "write_texts", texts)
        yield measured


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(demo_heads.spread_trunk(tmp_path_factory.mktemp("models") / "spread"), "float32")


@cache
def weights() -> demo_heads.Weights:
    return demo_heads.weights()


def picked(found: Probe) -> Conventions:
    return found.require(Path("head")).conventions


@pytest.mark.parametrize("wired", STORED, ids=lambda wired: f"{wired.norm_offset}-{wired.concat_order}")
def test_the_right_way_of_reading_the_weights_is_found(wired: Conventions, measure: Measure) -> None:
    """Otherwise a sidecar of somebody else's drafts nothing that is accepted, and nobody sees why."""
    found = measure(weights(), wired, demo())
    assert picked(found) == wired
    assert found.picked is not None
    assert found.picked.first > 0.6 > 2 * found.chance
    assert len(found.candidates) == 16
    # the demo's norms hardly scale, so that taps measure alike; they are those of the release
    assert {one.conventions.concat_order for one in found.alike} == {wired.concat_order}
    assert {one.conventions.norm_offset for one in found.alike} == {wired.norm_offset}
    assert len(found.alike) > 1


@pytest.mark.parametrize(
    ("wired", "rewrite"), [(BEFORE_NORMS, demo_heads.for_pre_norm), (RELEASED, demo_heads.for_post_norm)]
)
def test_the_right_taps_are_found(wired: Conventions, rewrite: Any, measure: Measure, spread: LoadedModel) -> None:
    """Otherwise a head that was trained on rows before the final norm is fed those after it."""
    found = measure(rewrite(weights()), wired, spread)
    assert picked(found) == wired
    assert len(found.alike) == 1


@pytest.mark.parametrize("spoil", [demo_heads.shuffled, demo_heads.foreign])
def test_a_dead_or_foreign_head_is_named_as_such(spoil: Any, measure: Measure) -> None:
    """Otherwise the least bad of 16 useless wirings is used, and decoding is slower than without."""
    found = measure(spoil(weights()), RELEASED, demo())
    assert (found.picked, found.alike) == (None, ())
    with pytest.raises(HeadDoesNotFit, match=r"no candidate is clearly better than chance \(best \d\.\d%") as caught:
        found.require(Path("mtp.safetensors"))
    assert caught.value.best < caught.value.chance < 0.1
    assert caught.value.num_tokens > 300


def test_what_the_user_said_is_not_measured(measure: Measure) -> None:
    """Otherwise a convention given on the command line is overruled by a guess."""
    found = measure(weights(), RELEASED, demo(), fixed={"hidden_tap": HiddenTap.PRE_NORM})
    assert len(found.candidates) == 8
    assert picked(found) == Conventions(norm_offset=1.0, hidden_tap=HiddenTap.PRE_NORM)


def test_a_head_of_another_size_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a person waits for texts of a large model to hear of a wrong file."""
    monkeypatch.setattr(probe, "write_texts", lambda *_: pytest.fail("a text was asked for"))
    smaller = weights() | {"mtp.norm.weight": weights()["mtp.norm.weight"][:128]}
    file = demo_heads.write(tmp_path / "mtp.safetensors", smaller, RELEASED)
    with pytest.raises(SidecarError, match=r"mtp\.norm\.weight is \[128\] and this model needs \[256\]"):
        probe.probe(demo(), sidecar_head(file))


def test_a_model_that_writes_nothing_cannot_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a handful of tokens decides."""
    file = demo_heads.write(tmp_path / "mtp.safetensors", weights(), RELEASED)
    prompt = tuple(demo().tokenizer.encode("Return the"))
    first = own_text.write(demo().target, prompt, 1, frozenset(), lambda: None).tokens[-1]
    stops = own_text.write(demo().target, prompt, 9, frozenset({first}), lambda: None)
    assert stops.tokens == (*prompt, first)
    assert stops.hidden.pre_norm.shape == (len(prompt), 256)
    monkeypatch.setattr(probe, "write_texts", lambda *_: [stops])
    with pytest.raises(ConventionsUnknown, match="writes too little by itself, 0 tokens"):
        probe.probe(demo(), sidecar_head(file))


def test_a_text_is_what_plain_decoding_writes() -> None:
    """Otherwise heads are measured on text that their model would not write."""
    from skulk_core.decode.decoder import Decoder
    from skulk_core.sampling.greedy import GreedySampler

    prompt = tuple(demo().tokenizer.encode("Return the number of"))
    decoder = Decoder(demo().target, None, GreedySampler())
    plain = [decoder.prefill(prompt, 0)]
    for round_ in decoder.rounds(19):
        plain += round_.tokens
    text = own_text.write(demo().target, prompt, 20, frozenset(), lambda: None)
    assert text.tokens == (*prompt, *plain)
    assert text.start == len(prompt)


def test_candidates_are_those_of_the_layout() -> None:
    """Otherwise a head is measured under a position rule that its code does not follow."""
    from skulk_core.heads.registry import head_layout

    layout = head_layout("qwen_mtp")
    assert layout is not None
    every = probe.candidates(layout, {})
    assert len(set(every)) == 16
    assert {one.position_rule for one in every} == {PositionRule.RUNNING}
    assert probe.candidates(layout, {"norm_offset": 0.5})[0].norm_offset == 0.5
