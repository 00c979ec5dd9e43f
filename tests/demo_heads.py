"""The demo's head written in other conventions, dead, or foreign; and the demo's trunk in a form that tells taps apart.

A head is rewritten exactly where a convention only says how weights are stored: the norms less the offset, the columns
of `fc` in the other order. Taps say which vectors are read, and no weights make one vector of another. But the demo's
final norm hardly scales at all, so that what it gives to the head is, up to a factor, what it was given: with it both
taps measure alike. `spread_trunk` is the same function of tokens with a final norm that scales each dimension by
another factor, which its LM head takes back. On it a head reads well at one tap only: by whether its norm of hidden
rows takes the factors back too, either both its taps are before the norms, or both after them.

No rewriting makes one tap of each kind right. Say the head writes ``s * out`` before its norm and that has the weights
``n``. Its logits want ``n * s * out`` to be what the LM head reads, its chain wants the tapped one of the two to be
what the norm of hidden rows reads. After the trunk's final norm these are the same vector, so a chain before the head's
norm wants ``n = 1``, with which both chains are alike; before the final norm they differ by its factors, which a chain
after the head's norm would have to have and not to have.
"""

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from cli_checkpoints import DEMO, DEMO_SIDECAR, demo_copy

from skulk_core.types import ConcatOrder, Conventions

Weights = dict[str, npt.NDArray[np.float32]]

_EMBEDDING, _FINAL_NORM = "model.language_model.embed_tokens.weight", "model.language_model.norm.weight"
_SIZE = 256
# As wide as the norms of large models get.
FACTORS = np.exp(np.random.default_rng(0).normal(0.0, 1.0, _SIZE)).astype(np.float32)


def weights() -> Weights:
    """The demo head's weights as they are computed with: the offset in the norms, the embedding's columns first."""
    return {name: array + 1.0 if array.ndim == 1 else array for name, array in _read(DEMO_SIDECAR).items()}


def write(file: Path, computed: Mapping[str, npt.NDArray[np.float32]], conventions: Conventions) -> Path:
    """A sidecar without metadata that computes with ``computed`` under ``conventions``."""
    stored = {}
    for name, array in computed.items():
        if array.ndim == 1:
            array = array - conventions.norm_offset
        if name == "mtp.fc.weight" and conventions.concat_order is ConcatOrder.HIDDEN_FIRST:
            array = np.roll(array, _SIZE, axis=1)
        stored[name] = mx.array(array)
    mx.save_safetensors(str(file), stored, {"format": "pt"})
    return file


def shuffled(computed: Weights) -> Weights:
    """A dead head: every weight somewhere else in its tensor."""
    rng = np.random.default_rng(1)
    return {name: rng.permutation(array.ravel()).reshape(array.shape) for name, array in computed.items()}


def foreign(computed: Weights) -> Weights:
    """A head that was made for a trunk whose dimensions mean something else: the same function after a rotation."""
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(_SIZE, _SIZE)))[0].astype(np.float32)
    fc = computed["mtp.fc.weight"].reshape(_SIZE, 2, _SIZE)
    return computed | {"mtp.fc.weight": (fc @ turn).reshape(_SIZE, 2 * _SIZE)}


def spread_trunk(folder: Path) -> Path:
    """The demo's checkpoint with `FACTORS` divided out of its final norm and multiplied into an LM head of its own."""
    file = demo_copy(folder) / "config.json"
    file.write_text(file.read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false'))
    arrays = _read(DEMO / "model.safetensors")
    arrays[_FINAL_NORM] = (arrays[_FINAL_NORM] + 1.0) / FACTORS - 1.0
    arrays["lm_head.weight"] = arrays[_EMBEDDING] * FACTORS
    mx.save_safetensors(
        str(folder / "model.safetensors"), {name: mx.array(x) for name, x in arrays.items()}, {"format": "pt"}
    )
    return folder


def for_pre_norm(computed: Weights) -> Weights:
    """For `spread_trunk`: logits go through its LM head, hidden rows are those before its final norm."""
    return computed | {"mtp.norm.weight": computed["mtp.norm.weight"] / FACTORS}


def for_post_norm(computed: Weights) -> Weights:
    """For `spread_trunk`: as `for_pre_norm`, and the norm of hidden rows takes back what the final norm did."""
    hidden = computed["mtp.pre_fc_norm_hidden.weight"] * FACTORS
    return for_pre_norm(computed) | {"mtp.pre_fc_norm_hidden.weight": hidden}


def _read(file: Path) -> Weights:
    arrays = mx.load(str(file))
    assert isinstance(arrays, dict)
    return {name: np.array(array.astype(mx.float32)) for name, array in arrays.items()}
