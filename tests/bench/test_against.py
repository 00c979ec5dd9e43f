"""Other programs beside ours: the same weights and prompts, and the same tokens where nothing is drawn."""

from pathlib import Path

import cli_checkpoints
import pytest
from demo import demo

from skulk_core.bench.against import MLX_LM, TRANSFORMERS, arms_against, require_common
from skulk_core.bench.workload import Peer, Skipped
from skulk_core.decode.engine import LocalEngine
from skulk_core.errors import OptionError
from skulk_core.models.loading import LoadedModel, load
from skulk_core.runtime.resources import demo_folder
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness

PROMPT, TOKENS = (5, 9, 11, 20, 7, 9, 11), 12


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose caches can be cut, so that every program can assist it."""
    return cli_checkpoints.plain_llama(tmp_path_factory.mktemp("against") / "plain")


def ours(model: LoadedModel) -> tuple[int, ...]:
    engine = LocalEngine(model.target, model.tokenizer, None)
    first = engine.prefill(PROMPT, 0, SamplingSettings(), Exactness.ARGMAX)
    return (first, *(token for round_ in engine.rounds(TOKENS - 1, frozenset()) for token in round_.tokens))


@pytest.mark.parametrize("program", [MLX_LM, TRANSFORMERS])
def test_both_arms_of_a_peer_decode_our_tokens(program: str, plain: Path) -> None:
    """A peer that decodes another model, or is held back, would be beaten for nothing."""
    model, checked = load(plain, "float32"), []
    draft = plain if program == MLX_LM else None
    for spec in arms_against(program, model, plain, draft):
        assert isinstance(spec.peer, Peer), spec
        text = spec.peer.decode(PROMPT, TOKENS, SamplingSettings(), lambda: checked.append(1))
        assert text.tokens == ours(model)
        assert text.prefill_s > 0
        assert text.decode_s > 0
        assert 1 <= text.num_first < TOKENS
    assert checked, "Ctrl-C would be deaf"
    assert [spec.name for spec in arms_against(program, model, plain, draft)] == [program, f"{program} assisted"]


@pytest.mark.parametrize("program", [MLX_LM, TRANSFORMERS])
def test_a_recurrent_model_is_decoded_plainly_and_the_reason_is_told(program: str) -> None:
    model = demo()
    alone, assisted = arms_against(program, model, demo_folder(), None)
    assert isinstance(alone.peer, Peer), alone
    assert alone.peer.decode(PROMPT, TOKENS, SamplingSettings(), lambda: None).tokens == ours(model)
    assert isinstance(assisted.peer, Skipped)
    assert "recurrent" in assisted.peer.reason or "caches" in assisted.peer.reason


def test_drawn_tokens_of_a_peer_are_repeatable(plain: Path) -> None:
    model, settings = load(plain, "float32"), SamplingSettings(temperature=0.8, top_k=40, seed=3)
    for program in (MLX_LM, TRANSFORMERS):
        peer = arms_against(program, model, plain, None)[0].peer
        assert isinstance(peer, Peer)
        texts = [peer.decode(PROMPT, TOKENS, settings, lambda: None).tokens for _ in range(2)]
        assert texts[0] == texts[1]


def test_what_others_read_otherwise_is_not_asked_of_them() -> None:
    require_common(SamplingSettings(temperature=0.5, top_p=0.9, min_p=0.1, top_k=5))
    for settings in (SamplingSettings(repetition_penalty=1.2), SamplingSettings(logit_bias=((3, 1.0),))):
        with pytest.raises(OptionError, match="--against"):
            require_common(settings)


def test_another_program_is_refused(plain: Path) -> None:
    with pytest.raises(OptionError, match="not one of mlx-lm, transformers"):
        arms_against("vllm", load(plain, "float32"), plain, None)
