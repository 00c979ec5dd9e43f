"""Other programs beside ours: the same weights and prompts, and the same tokens where nothing is drawn."""

from pathlib import Path

import assistants
import cli_checkpoints
import pytest
from demo import demo

from skulk_core.bench.against import MLX_LM, TRANSFORMERS, Against, arms_against, require_common
from skulk_core.bench.workload import Peer, Skipped
from skulk_core.decode.engine import LocalEngine
from skulk_core.errors import OptionError
from skulk_core.models.loading import LoadedModel, load
from skulk_core.runtime.resources import demo_folder
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.types import Exactness

PROMPT, TOKENS = (5, 9, 11, 20, 7, 9, 11), 12
FITS, TOO_LONG = len(PROMPT) + TOKENS, 1000


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose caches can be cut, so that every program can assist it."""
    return cli_checkpoints.plain_llama(tmp_path_factory.mktemp("against") / "plain")


def ours(model: LoadedModel) -> tuple[int, ...]:
    engine = LocalEngine(model.target, model.tokenizer, None)
    first = engine.prefill(PROMPT, 0, SamplingSettings(), Exactness.ARGMAX)
    return (first, *(token for round_ in engine.rounds(TOKENS - 1, frozenset()) for token in round_.tokens))


def decodes_ours(peer: Peer | Skipped | None, model: LoadedModel) -> bool:
    """Whether it decodes our tokens, in times that can be told apart, and lets Ctrl-C through."""
    checked: list[int] = []
    assert isinstance(peer, Peer), peer
    text = peer.decode(PROMPT, TOKENS, SamplingSettings(), lambda: checked.append(1))
    return text.tokens == ours(model) and min(text.prefill_s, text.decode_s) > 0 and 1 <= text.num_first < TOKENS


def why_skipped(peer: Peer | Skipped | None) -> str:
    assert isinstance(peer, Skipped), peer
    return peer.reason


@pytest.mark.parametrize(
    ("program", "draft", "names"),
    [
        (MLX_LM, True, ["mlx-lm", "mlx-lm + drafts"]),
        (TRANSFORMERS, True, ["transformers", "transformers + drafts"]),
        (TRANSFORMERS, False, ["transformers", "transformers + lookup"]),
    ],
)
def test_every_arm_of_a_peer_decodes_our_tokens(program: str, draft: bool, names: list[str], plain: Path) -> None:
    """A peer that decodes another model, or is held back, would be beaten for nothing."""
    model = load(plain, "float32")
    specs = arms_against(Against(program, model, plain, FITS, plain if draft else None))
    assert [spec.name for spec in specs] == names
    assert all(decodes_ours(spec.peer, model) for spec in specs)


@pytest.mark.parametrize(("program", "why"), [(MLX_LM, "recurrent"), (TRANSFORMERS, "recurrent")])
def test_a_recurrent_model_is_decoded_plainly_and_the_reason_is_told(program: str, why: str) -> None:
    alone, assisted = arms_against(Against(program, demo(), demo_folder(), FITS))
    assert decodes_ours(alone.peer, demo())
    assert why in why_skipped(assisted.peer)


def test_gemma_and_the_assistant_that_its_publisher_made() -> None:
    """The way that transformers has for it; where a release cannot build it, its words say so, and it looks up."""
    model = assistants.target()
    alone, *assisted = arms_against(
        Against(TRANSFORMERS, model, assistants.TARGET, FITS, assistant=assistants.ASSISTANT)
    )
    assert decodes_ours(alone.peer, model)
    assert decodes_ours(assisted[-1].peer, model)
    if len(assisted) > 1:
        assert "as a draft model, assistant: transformers" in why_skipped(assisted[0].peer)
        assert [arm.name for arm in assisted] == ["transformers assisted", "transformers + lookup"]


def test_mlx_lm_is_not_asked_for_what_it_would_get_wrong() -> None:
    """Once a window is full it goes on with refused drafts in its caches: its text would be another, and fast."""
    model, path = assistants.target(), assistants.TARGET
    plain, assisted = arms_against(Against(MLX_LM, model, path, FITS, path))
    assert decodes_ours(plain.peer, model)
    assert decodes_ours(assisted.peer, model)
    _, assisted = arms_against(Against(MLX_LM, model, path, TOO_LONG, path))
    assert "window of" in why_skipped(assisted.peer)
    _, assisted = arms_against(Against(MLX_LM, model, path, FITS, assistants.ASSISTANT))
    assert "mlx-lm cannot load assistant as a draft model" in why_skipped(assisted.peer)


def test_drawn_tokens_of_a_peer_are_repeatable(plain: Path) -> None:
    model, settings = load(plain, "float32"), SamplingSettings(temperature=0.8, top_k=40, seed=3)
    for program in (MLX_LM, TRANSFORMERS):
        peer = arms_against(Against(program, model, plain, FITS))[0].peer
        assert isinstance(peer, Peer)
        texts = [peer.decode(PROMPT, TOKENS, settings, lambda: None).tokens for _ in range(2)]
        assert texts[0] == texts[1]


def test_what_others_read_otherwise_is_not_asked_of_them() -> None:
    require_common(SamplingSettings(temperature=0.5, top_p=0.9, min_p=0.1, top_k=5))
    for settings in (SamplingSettings(repetition_penalty=1.2), SamplingSettings(logit_bias=((3, 1.0),))):
        with pytest.raises(OptionError, match="--against"):
            require_common(settings)


def test_what_is_no_program_and_no_draft_model(plain: Path) -> None:
    model = load(plain, "float32")
    with pytest.raises(OptionError, match="not one of mlx-lm, transformers"):
        arms_against(Against("vllm", model, plain, FITS))
    for program in (MLX_LM, TRANSFORMERS):
        with pytest.raises(OptionError, match="--against-draft /nowhere: no such folder"):
            arms_against(Against(program, model, plain, FITS, Path("/nowhere")))
    with pytest.raises(OptionError, match="vocabulary"):
        arms_against(Against(MLX_LM, model, plain, FITS, assistants.TARGET))
