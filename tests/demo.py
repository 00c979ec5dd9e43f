"""The demo model, its head, the prompts it was not trained on, and its checkpoint as upstream would release it."""

from functools import cache
from pathlib import Path

import mlx.core as mx

from skulk_core.heads.files import sidecar_head
from skulk_core.heads.loading import LoadedHead, load_head
from skulk_core.models.loading import LoadedModel, load
from skulk_core.runtime.resources import demo_folder, demo_sidecar

PROMPTS = Path(__file__).with_name("data") / "prompts.txt"


@cache
def demo(dtype: str = "float32") -> LoadedModel:
    """The demo's trunk."""
    return load(demo_folder(), dtype)


@cache
def demo_head(dtype: str = "float32") -> LoadedHead:
    """The demo's head, from its sidecar."""
    return load_head(demo(dtype), sidecar_head(demo_sidecar()))


def prompts() -> list[str]:
    """Openings of text the demo was not trained on."""
    return PROMPTS.read_text(encoding="utf-8").splitlines()


def upstream_checkpoint(folder: Path) -> Path:
    """Trunk and head in one checkpoint, bit for bit as upstream releases them."""
    trunk, head = mx.load(str(demo_folder() / "model.safetensors")), mx.load(str(demo_sidecar()))
    assert isinstance(trunk, dict)
    assert isinstance(head, dict)
    mx.save_safetensors(str(folder / "model.safetensors"), {**trunk, **head}, {"format": "pt"})
    for file in demo_folder().glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
