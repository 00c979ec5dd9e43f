"""One BF16 sidecar serves every quantisation and fine-tune of its base model."""

from pathlib import Path

import pytest
from demo import prompts, upstream_checkpoint
from variants import fine_tuned, quantised

from skulk_core.decode.decoder import Decoder
from skulk_core.heads.base import DraftHead
from skulk_core.heads.files import own_head, sidecar_head
from skulk_core.heads.loading import load_head
from skulk_core.models.loading import LoadedModel, load
from skulk_core.runtime.resources import demo_sidecar
from skulk_core.sampling.greedy import GreedySampler

NUM_TOKENS = 120
DEPTH = 2


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upstream_checkpoint(tmp_path_factory.mktemp("upstream"))


def decode(model: LoadedModel, head: DraftHead | None, text: str) -> tuple[list[int], list[float]]:
    decoder = Decoder(model.target, head, GreedySampler())
    tokens = [decoder.prefill(model.tokenizer.encode(text), DEPTH if head else 0)]
    for round_ in decoder.rounds(NUM_TOKENS - 1):
        tokens += round_.tokens
    return tokens, decoder.stats.acceptance


@pytest.mark.parametrize("variant", ["4bit", "8bit", "fine-tune"])
def test_the_sidecar_serves_a_variant(variant: str, upstream: Path, tmp_path: Path) -> None:
    """Acceptance stays within reach of the base model's 86 %, and the text is the variant's own."""
    folder = tmp_path / variant
    if variant == "fine-tune":
        fine_tuned(upstream, folder)
    else:
        quantised(upstream, folder, int(variant[0]))
    model = load(folder, "float32")
    assert own_head(model.headers) is None
    head = load_head(model, sidecar_head(demo_sidecar())).head
    shares = []
    for text in prompts()[:3]:
        tokens, acceptance = decode(model, head, text)
        assert tokens == decode(model, None, text)[0]
        shares.append(acceptance[0])
    assert sum(shares) / len(shares) > 0.7


def test_a_checkpoint_that_carries_its_head_uses_it(upstream: Path) -> None:
    model = load(upstream, "float32")
    files = own_head(model.headers)
    assert files is not None
    loaded = load_head(model, files)
    assert loaded.conventions.norm_offset == 1.0
    _, acceptance = decode(model, loaded.head, prompts()[0])
    assert acceptance[0] > 0.7
