"""One BF16 sidecar serves every quantisation and fine-tune of its base model."""

from pathlib import Path

import mlx.core as mx
import pytest
from demo import prompts, upstream_checkpoint
from mlx_lm.convert import convert

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


def quantised(upstream: Path, folder: Path, bits: int) -> Path:
    """As `mlx_lm convert -q` leaves it: packed, its convolutions turned, its head dropped."""
    convert(str(upstream), mlx_path=str(folder), quantize=True, q_bits=bits, q_group_size=64)
    return folder


def fine_tuned(upstream: Path, folder: Path) -> Path:
    """Every matrix moved by 3 % of its own spread, the head left out: a stand-in for a fine-tune."""
    folder.mkdir()
    weights = mx.load(str(upstream / "model.safetensors"))
    assert isinstance(weights, dict)
    mx.random.seed(1)
    moved = {}
    for name, weight in weights.items():
        if name.startswith("mtp."):
            continue
        exact = weight.astype(mx.float32)
        noise = 0.03 * mx.std(exact) * mx.random.normal(weight.shape) if weight.ndim > 1 else 0.0
        moved[name] = (exact + noise).astype(weight.dtype)
    mx.save_safetensors(str(folder / "model.safetensors"), moved, {"format": "pt"})
    for file in upstream.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


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
