"""Which of several GGUF files is the model to run, as far as their names tell."""

import re
from collections.abc import Sequence

_SUFFIX = ".gguf"
# a vision tower, or a later part of a model that was split
_NO_MODEL = re.compile(r"mmproj|imatrix|-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
# the kinds that can be read, as publishers write them into names
_READABLE = re.compile(r"(?<![a-z0-9])(f32|fp32|f16|fp16|bf16|q8_0|q4_1|q4_0)(?![a-z0-9_])", re.IGNORECASE)


def is_model(name: str) -> bool:
    """Whether the file called ``name`` may be a model in GGUF."""
    return name.lower().endswith(_SUFFIX) and not _NO_MODEL.search(name)


def preferred(names: Sequence[str]) -> str | None:
    """The only one of ``names``, or the only one whose name says that it can be read; None if there is none such."""
    if len(names) == 1:
        return names[0]
    readable = [name for name in names if _READABLE.search(name)]
    return readable[0] if len(readable) == 1 else None
