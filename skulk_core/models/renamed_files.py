"""A checkpoint under the names by which mlx-lm finds weights: `model*.safetensors`, in a folder that is no pattern."""

import glob
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# all that mlx-lm's `load_model` reads besides weights
_SETTINGS = ("config.json", "generation_config.json", "hf_quant_config.json")


@contextmanager
def as_mlx_lm_finds_it(folder: Path, weights: Sequence[Path]) -> Iterator[Path]:
    """A folder in which mlx-lm finds the files ``weights`` of ``folder`` and no others, until the block ends.

    ``folder`` itself where that is so there; else a temporary one with links. Arrays that were loaded from it, and not
    read yet, hold their files open. Raises `OSError`.
    """
    if {Path(found) for found in glob.glob(str(folder / "model*.safetensors"))} == set(weights):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="skulk-model-") as name:
        clean = Path(glob.escape(name))
        if str(clean) != name:
            raise OSError(f"the folder for temporary files, {name}, has a name that mlx-lm takes for a pattern")
        for setting in _SETTINGS:
            if (folder / setting).is_file():
                (clean / setting).symlink_to((folder / setting).absolute())
        for number, file in enumerate(weights):
            (clean / f"model-{number:05d}.safetensors").symlink_to(file.absolute())
        yield clean
