"""`probes.json`, schema 1: how heads that do not say so are wired, as measured on this machine.

    {"schema": 1,
     "probes": [{"head": "sha256:…",           the head's tensors: names, dtypes, shapes and bytes
                 "trunk": "sha256:…",          the trunk it was measured on: its sizes and its final norm
                 "conventions": {…},           all five, as in the catalog
                 "agreement": 0.68,            share of first drafts that were right
                 "num_tokens": 335,            tokens it was measured on
                 "alike": 1}]}                 ways that could not be told from the best, itself among them

The file is a memory, not a setting: without it, heads are measured again. The oldest records fall out.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from skulk_core.formats.json_file import JsonSection, read_json
from skulk_core.types import CONVENTION_NAMES, ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

SCHEMA = 1
_MOST_RECORDS = 200
_KEYS = ("head", "trunk", "conventions", "agreement", "num_tokens", "alike")


@dataclass(frozen=True)
class ProbeRecord:
    """What was measured of one head on one trunk. `head` and `trunk` are digests, `sha256:` and 64 digits."""

    head: str
    trunk: str
    conventions: Conventions
    agreement: float
    num_tokens: int
    alike: int = 1


def read_probes(path: Path) -> tuple[ProbeRecord, ...]:
    """Records of the file, oldest first; none if it is not there.

    Raises `FileError` if it cannot be read, `FormatError` naming the key if it breaks the schema.
    """
    if not path.exists():
        return ()
    top = read_json(path)
    top.only(("schema", "probes"))
    found = top.integer("schema", minimum=1)
    if found != SCHEMA:
        raise top.error("schema", f"is {found}; this program reads schema {SCHEMA}")
    return tuple(_record(section) for section in top.sections("probes"))


def with_probe(records: tuple[ProbeRecord, ...], record: ProbeRecord) -> str:
    """The text of a file of ``records`` with ``record`` as the newest, in place of one of the same head and trunk."""
    others = [old for old in records if (old.head, old.trunk) != (record.head, record.trunk)]
    kept = [*others, record][-_MOST_RECORDS:]
    return json.dumps({"schema": SCHEMA, "probes": [asdict(one) for one in kept]}, indent=1) + "\n"


def _record(section: JsonSection) -> ProbeRecord:
    section.only(_KEYS)
    wired = section.section("conventions")
    wired.only(CONVENTION_NAMES)
    return ProbeRecord(
        head=section.text("head"),
        trunk=section.text("trunk"),
        conventions=Conventions(
            norm_offset=wired.number("norm_offset"),
            concat_order=wired.choice("concat_order", ConcatOrder),
            hidden_tap=wired.choice("hidden_tap", HiddenTap),
            chain_tap=wired.choice("chain_tap", ChainTap),
            position_rule=wired.choice("position_rule", PositionRule),
        ),
        agreement=section.number("agreement"),
        num_tokens=section.integer("num_tokens", minimum=1),
        alike=section.integer("alike", minimum=1) if section.has("alike") else 1,
    )
