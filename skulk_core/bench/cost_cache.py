"""Isolated costs of rounds, measured once for a model on a machine and remembered.

The file is a cache: whatever is wrong with it, it is measured anew and written over.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from skulk_core.errors import FileError, FormatError
from skulk_core.formats.json_file import read_json
from skulk_core.runtime.userfiles import write_atomically

SCHEMA = 3
_MOST_ENTRIES = 64


def cache_file() -> Path:
    """`$XDG_CACHE_HOME/skulk/costs.json`, or under `~/.cache`."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "skulk" / "costs.json"


def key_of(*facts: object) -> str:
    """One key for everything that costs depend on: model, head, dtype, machine, versions, sampling."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def remembered_or(key: str, measure: Callable[[], Sequence[float]], *, anew: bool = False) -> tuple[float, ...]:
    """Seconds of a round at depths from 0 on: those remembered under ``key``, else or ``anew`` measured and kept."""
    entries = _read()
    known = None if anew else entries.get(key)
    if known:
        return tuple(known)
    costs = tuple(measure())
    assert costs, "nothing was measured"
    kept = dict(list(entries.items())[-_MOST_ENTRIES:])
    kept.pop(key, None)
    # a home that cannot be written: measured again next time
    with suppress(FileError):
        write_atomically(cache_file(), json.dumps({"schema": SCHEMA, "round_s": {**kept, key: list(costs)}}) + "\n")
    return costs


def _read() -> dict[str, list[float]]:
    """Every entry that is one."""
    try:
        data = read_json(cache_file()).data
    except (FileError, FormatError):
        return {}
    found = data.get("round_s") if data.get("schema") == SCHEMA else None
    if not isinstance(found, dict):
        return {}
    return {key: costs for key, costs in found.items() if _are_costs(costs)}


def _are_costs(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(x, float) and math.isfinite(x) and x > 0 for x in value)
