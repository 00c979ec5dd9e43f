"""From a GGUF file to mlx-lm's model of it and a tokenizer."""

import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from mlx_lm.utils import _get_classes as mlx_lm_classes

from skulk_core.errors import FileError
from skulk_core.hub.headers import CheckpointHeaders
from skulk_core.models.gguf_config import architecture_of, make_config
from skulk_core.models.gguf_file import GgufFile, read_gguf
from skulk_core.models.gguf_tokenizer import save_tokenizer
from skulk_core.models.gguf_weights import BITS, GROUP_SIZE, fit, load_weights
from skulk_core.models.loading import FILES_AT_FAULT, Parts, make_tokenizer, shortened
from skulk_core.models.registry import require_adapter


def load_gguf(path: Path) -> Parts:
    """The parts of a `LoadedModel` from the GGUF file ``path``; it carries no head.

    Raises `FileError`, `UnsupportedQuantization`, `UnsupportedArchitecture`.
    """
    file = read_gguf(path)
    architecture = architecture_of(file)
    config = make_config(file, architecture)
    model_class, args_class = mlx_lm_classes(config)
    require_adapter(model_class)
    try:
        model = model_class(args_class.from_dict(config))
    except FILES_AT_FAULT as error:
        raise FileError(path, f"mlx-lm cannot build its model: {shortened(str(error))}") from error
    load_weights(file, architecture, model, fit(file, architecture, model))
    model.eval()
    kinds = Counter(BITS[tensor.kind] for tensor in file.tensors.values() if tensor.kind in BITS)
    if kinds:
        # a file may mix kinds: as most of its tensors are
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": kinds.most_common(1)[0][0], "mode": "affine"}
    # Blocks have float16 scales and F32 norms around them: float32 loses nothing and costs little beside the weights,
    # while bfloat16 moved SmolLM2's logits by 3.4, one standard deviation. F16 was made of BF16, whose range it lacks
    halves = not kinds and any(tensor.kind != "F32" for tensor in file.tensors.values())
    dtype = "bfloat16" if halves else "float32"
    return Parts(model, config, CheckpointHeaders(path.parent, ()), partial(_tokenizer, file, config), dtype)


def _tokenizer(file: GgufFile, config: dict[str, Any]) -> Any:
    # through files, from which mlx-lm chooses how tokens become text
    with tempfile.TemporaryDirectory(prefix="skulk-tokenizer-") as folder:
        try:
            save_tokenizer(file, Path(folder))
        except FILES_AT_FAULT as error:
            raise FileError(file.path, f"no usable tokenizer: {shortened(str(error))}") from error
        return make_tokenizer(Path(folder), config, file.path)
