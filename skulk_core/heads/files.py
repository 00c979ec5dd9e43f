"""The files of a draft head: a sidecar, tensors of the model's own checkpoint, or a checkpoint of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from skulk_core.errors import SidecarError
from skulk_core.formats.head_names import belongs_to_head, files_of_head, is_assistant
from skulk_core.formats.sidecar import SIDECAR_FILE, NoMetadata, SidecarMetadata, from_strings
from skulk_core.hub.headers import CheckpointHeaders, TensorHeader, read_checkpoint_headers, read_headers, read_metadata
from skulk_core.models.loading import read_config


@dataclass(frozen=True)
class HeadFiles:
    """Where a head's tensors are and what its files say of it.

    ``config`` is the `config.json` of a head that is a checkpoint of its own; None for every other.
    """

    tensors: tuple[TensorHeader, ...]
    metadata: SidecarMetadata | NoMetadata
    origin: Path
    config: Mapping[str, Any] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names as the files have them."""
        return tuple(tensor.name for tensor in self.tensors)

    def read(self) -> dict[str, mx.array]:
        """The tensors by name. Raises `SidecarError`."""
        wanted = set(self.names)
        out: dict[str, mx.array] = {}
        for file in sorted({tensor.file for tensor in self.tensors}):
            try:
                arrays = mx.load(str(file), format="safetensors")
            except (RuntimeError, ValueError) as error:
                raise SidecarError(self.origin, f"cannot be read by MLX: {error}") from error
            assert isinstance(arrays, dict)
            out.update({name: array for name, array in arrays.items() if name in wanted})
        return out


def own_head(headers: CheckpointHeaders) -> HeadFiles | None:
    """The head that a checkpoint carries in its own files, or None."""
    found = tuple(tensor for tensor in headers.model if belongs_to_head(tensor.name))
    return HeadFiles(found, NoMetadata(()), headers.folder) if found else None


def head_beside(headers: CheckpointHeaders) -> HeadFiles | None:
    """The head in a file beside the checkpoint's own, or None. Raises as `sidecar_head` does."""
    own = {tensor.file.name for tensor in headers.model}
    names = files_of_head((file.name for file in headers.folder.iterdir()), own)
    if not names:
        return None
    files = [headers.folder / name for name in names]
    tensors = tuple(tensor for file in files for tensor in read_headers(file))
    # of several shards the first speaks for all
    return HeadFiles(tensors, from_strings(files[0], read_metadata(files[0])), files[0])


def sidecar_head(file: Path) -> HeadFiles:
    """The head in a sidecar file. Raises `FileError` or `FormatError`."""
    return HeadFiles(read_headers(file), from_strings(file, read_metadata(file)), file)


def assistant_head(folder: Path) -> HeadFiles:
    """The head that the checkpoint in ``folder`` is. Raises `FileError`, and `SidecarError` for one that is none."""
    config = read_config(folder)
    if not is_assistant(config["model_type"]):
        raise SidecarError(folder, f"is a model of type {config['model_type']}, and no draft head for another")
    return HeadFiles(read_checkpoint_headers(folder).model, NoMetadata(()), folder, config)


def head_in(folder: Path) -> HeadFiles:
    """The head in a folder that holds a sidecar or an assistant's checkpoint. Raises as the two above do."""
    file = folder / SIDECAR_FILE
    return sidecar_head(file) if file.is_file() else assistant_head(folder)
