"""`config.json` of a model, in a folder or on the Hub, as far as it can be had: what is missing is an outcome."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

from skulk_core.errors import HubError
from skulk_core.hub.client_errors import CLIENT_ERRORS, translate
from skulk_core.hub.refs import RepoRef

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class NoConfig:
    """There is none to be had; `reason` is a sentence for a person."""

    reason: str


def read_model_config(where: Path | RepoRef, *, cached_only: bool = False) -> Mapping[str, Any] | NoConfig:
    """The content of config.json in the folder, or of the repository, from which only this file is downloaded.

    With `cached_only` nobody is asked: it is read if the cache has it.
    """
    if isinstance(where, Path):
        return _read(where / CONFIG_FILE, str(where))
    try:
        file = hf_hub_download(where.repo, CONFIG_FILE, revision=where.revision, local_files_only=cached_only)
    except LocalEntryNotFoundError:
        return NoConfig(f"{CONFIG_FILE} of {where} cannot be fetched: the Hub cannot be reached")
    except EntryNotFoundError:
        return NoConfig(f"{where} has no {CONFIG_FILE}")
    except HFValidationError:
        return NoConfig(f"{where} is no repository")
    except CLIENT_ERRORS as error:
        ours = translate(error, where)
        return NoConfig(
            f"{CONFIG_FILE} of {where} cannot be fetched: {ours.reason if isinstance(ours, HubError) else ours}"
        )
    return _read(Path(file), str(where))


def _read(file: Path, name: str) -> Mapping[str, Any] | NoConfig:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return NoConfig(f"{name} has no {CONFIG_FILE}")
    except (OSError, ValueError, RecursionError):
        return NoConfig(f"{CONFIG_FILE} of {name} cannot be read")
    return config if isinstance(config, dict) else NoConfig(f"{CONFIG_FILE} of {name} is no object")
