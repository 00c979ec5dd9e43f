"""Extracting in this process, from a folder; and what came of it."""

from functools import cache
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch

from cli_checkpoints import Tensor, read_file

from skulk_core.catalog import Catalog
from skulk_core.formats.provenance import Manifest, read_manifest
from skulk_core.runtime.resources import catalog_path
from swp.extract import Wish, extract
from swp.sources import open_source

SOURCE = f"owner/model@{'a' * 40}"


def extract_here(checkpoint: Path, out: Path, **wish: Any) -> Manifest:
    """Extract from a folder said to be `SOURCE`, and read the manifest back."""
    cancel = Event()
    # the cards of base models would be asked of the real Hub
    with patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
        extract(open_source(str(checkpoint), SOURCE, cancel), out, Wish(**wish), shipped_catalog(), "swp test", cancel)
    return read_manifest(out)


@cache
def shipped_catalog() -> Catalog:
    """The catalog that comes with the program, read once."""
    return Catalog.load(catalog_path(), None)


def shipped(out: Path) -> dict[str, Tensor]:
    """The tensors in the sidecar of a folder."""
    return read_file(out / "mtp.safetensors")[0]
