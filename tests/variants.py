r"""Variants of the demo's trunk, as the world makes them of a base model: quantised, and moved as by a fine-tune.

python tests/variants.py FOLDER        # writes FOLDER/as-released, 8bit, 4bit and fine-tune

skulk bench FOLDER/8bit --sidecar skulk_core/_data/demo-sidecar --draft-depth 2 --prompts tests/data/prompts.txt \
        --runs 1 --out OUT
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def quantised(upstream: Path, folder: Path, bits: int) -> Path:
    """As `mlx_lm convert -q` leaves it: packed, its convolutions turned, its head dropped."""
    from mlx_lm.convert import convert

    convert(str(upstream), mlx_path=str(folder), quantize=True, q_bits=bits, q_group_size=64)
    return folder


def fine_tuned(upstream: Path, folder: Path) -> Path:
    """Every matrix moved by 3 % of its own spread, the head left out: a stand-in for a fine-tune."""
    import mlx.core as mx

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


def main(folder: Path) -> None:
    """Write all of them; the one as released holds its own head."""
    from skulk_core.runtime.device import load_mlx

    load_mlx()
    from demo import upstream_checkpoint

    released = folder / "as-released"
    released.mkdir(parents=True)
    upstream_checkpoint(released)
    quantised(released, folder / "8bit", 8)
    quantised(released, folder / "4bit", 4)
    fine_tuned(released, folder / "fine-tune")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]))
