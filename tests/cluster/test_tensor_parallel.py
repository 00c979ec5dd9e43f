"""Two ranks with half of every layer's heads give the tokens of one host."""

from pathlib import Path

import pytest
from cluster_rings import WITH_LOOKUP, answer, one_host, ring
from cluster_tiny import save_tiny

from skulk_core.errors import WorkerFailed
from skulk_core.heads.ngram import NgramHead
from skulk_core.models.loading import load
from skulk_core.sampling.settings import SamplingSettings

DRAWN = SamplingSettings(temperature=0.8, seed=4)


def test_a_family_whose_layers_cannot_be_shared_is_refused() -> None:
    """Before anything is decoded: half of a recurrent layer would give another text."""
    with pytest.raises(WorkerFailed) as refused, ring("demo", (0, 4, 8), tensor=True):
        pass
    assert refused.value.error == "OptionError"
    assert "--shard pipeline" in str(refused.value)


@pytest.mark.parametrize("name", ["llama", "qwen3-tied"])
def test_plain_families(name: str, tmp_path: Path) -> None:
    folder = save_tiny(name, tmp_path)
    prompt = [5, 9, 17, 33, 65, 2] * 4
    with ring(folder, (0, 2, 4), WITH_LOOKUP, tensor=True) as engine:
        for depth, sampling in ((0, SamplingSettings()), (3, SamplingSettings()), (2, DRAWN)):
            tokens = answer(engine, prompt, depth, 60, sampling)
            target = load(folder, "float32").target
            assert tokens == one_host(target, NgramHead(), prompt, depth, 60, sampling), depth
