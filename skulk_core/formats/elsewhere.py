"""`skulk-elsewhere.json`, schema 1: tensors of a checkpoint whose files are on other hosts.

    {"schema": 1, "files": {"model-00002-of-00009.safetensors": [["model.layers.7.mlp.up_proj.weight", "BF16", [9, 4]],
                                                                 ...]}}

A host that holds a part of a model has the part's files alone, and this in their folder or in our cache: how a family's
weights are read depends on which tensors the whole checkpoint has.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skulk_core.errors import FormatError
from skulk_core.formats.json_file import read_json

SCHEMA = 1
ELSEWHERE_FILE = "skulk-elsewhere.json"


@dataclass(frozen=True)
class AbsentTensor:
    """A tensor that `file` declares, which is not here. `dtype` is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str


def elsewhere_text(tensors: Iterable[AbsentTensor]) -> str:
    """The content of the file."""
    files: dict[str, list[object]] = {}
    for tensor in tensors:
        files.setdefault(tensor.file, []).append([tensor.name, tensor.dtype, list(tensor.shape)])
    return json.dumps({"schema": SCHEMA, "files": files})


def read_elsewhere(path: Path) -> tuple[AbsentTensor, ...]:
    """Read the file. Raises `FileError`, `FormatError`."""
    top = read_json(path)
    top.only(("schema", "files"))
    found = top.integer("schema", minimum=1)
    if found != SCHEMA:
        raise top.error("schema", f"is {found}; this program reads schema {SCHEMA}")
    files: Mapping[str, Any] = top.section("files").data
    try:
        return tuple(
            AbsentTensor(str(name), str(dtype), tuple(int(size) for size in shape), file)
            for file, tensors in files.items()
            for name, dtype, shape in tensors
        )
    except (TypeError, ValueError) as error:
        raise FormatError(path, "files", "must list [name, dtype, shape] for every file") from error
