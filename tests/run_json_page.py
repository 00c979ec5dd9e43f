"""What the page of `skulk run --json` promises, as a check of an answer."""

import re
from typing import Any

from cli import run_json

_ROW = re.compile(r"^    ([a-z_]+(?:\.[a-z_]+)?) +(\S+(?: \| \S+)?) {2,}\S", re.MULTILINE)
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str": (str,),
    "object": (dict,),
    "list": (list,),
    "list[int]": (list,),
    "list[float]": (list,),
    "null": (type(None),),
}


def documented() -> dict[str, tuple[type, ...]]:
    """Every field of the page, those of an object after its name and a dot, with the types it may have."""
    assert run_json.__doc__ is not None
    rows = [row for row in _ROW.findall(run_json.__doc__) if row != ("field", "type")]
    return {name: tuple(t for part in types.split(" | ") for t in _TYPES[part]) for name, types in rows}


def assert_as_documented(answer: dict[str, Any]) -> None:
    """Fail for a field that the page lacks or explains in vain, or that has another type. Null objects have none."""
    found: dict[str, Any] = {}
    for name, value in answer.items():
        found[name] = value
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": one for inner, one in value.items()}
    promised = documented()
    absent = {name for name in promised if answer.get(name.partition(".")[0]) is None and "." in name}
    assert set(found) == set(promised) - absent
    for name, value in found.items():
        assert isinstance(value, promised[name]), (name, value)
        assert not (isinstance(value, bool) and bool not in promised[name]), name
