"""Looks models up in a process of its own: huggingface_hub reads its environment once, when imported.

Arguments: a catalog, then models. The last line on stdout is a list with what became of each, as JSON.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from skulk_core.catalog import Catalog, Subject, resolve


def main(catalog: str, *models: str) -> None:
    entries = Catalog.load(Path(catalog), None).entries
    found = [resolve(Subject.parse(model), entries) for model in models]
    print(json.dumps([{"base": one.base, "steps": [asdict(step) for step in one.steps]} for one in found]))


if __name__ == "__main__":
    main(*sys.argv[1:])
