"""Extracts a vindex once for every way in which larql goes wrong: in one process, since each takes a second to start.

Arguments: the stand-in for larql, a model, modes. Prints for each mode the error and the names that are left, as JSON.
"""

import json
import sys
from pathlib import Path
from threading import Event

from larql_standin import Larql

from skulk_core.errors import SkulkError
from skulk_core.hub.refs import RepoRef
from swp.vindex import Wish, extract, make_plan, open_source
from swp.vindex_program import identify


def main(larql: str, model: str, *modes: str) -> None:
    executable, answers = Path(larql), {}
    program, source = identify(executable), open_source(RepoRef(model), Event())
    for mode in modes:
        Larql(executable).set(mode)
        try:
            extract(make_plan(source, Wish(), Path("broken") / mode), executable, program, "swp test")
        except SkulkError as error:
            left = sorted(path.name for path in Path("broken").iterdir())
            answers[mode] = (type(error).__name__, str(error), left)
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
