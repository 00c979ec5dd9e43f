"""What a receipt says of the model, its head and the hosts, as they were loaded for a benchmark."""

from dataclasses import replace
from typing import TYPE_CHECKING

from cli.loading import Loaded

if TYPE_CHECKING:
    from skulk_core.formats.receipt_facts import ModelRecord, SidecarRecord, StageRecord


def model_of(loaded: Loaded) -> "ModelRecord":
    from skulk_core.bench.facts import model_record

    if loaded.engine is None:
        return model_record(loaded.source, loaded.model)
    epoch = loaded.engine.epoch
    dtype = epoch.members[0].assignment.dtype
    nbytes = sum(int(frame["nbytes"]) for frame in epoch.loaded)
    return model_record(loaded.source, loaded.model, dtype=None if dtype == "checkpoint" else dtype, nbytes=nbytes)


def sidecar_of(loaded: Loaded) -> "SidecarRecord | None":
    from skulk_core.bench.facts import sidecar_record

    if loaded.head_name is None:
        return None
    head = loaded.head
    if loaded.engine is not None:
        from skulk_core.bench.instruments import sidecar_at_decider

        # its file is on the decider, which knows what it read
        layout, sha256, conventions = sidecar_at_decider(loaded.engine)
        precision = str(loaded.engine.drafter["precision"]) or "none"
        known = sidecar_record(loaded.head_name, None, layout, precision)
        return replace(known, sha256=sha256, conventions=conventions)
    if head is None:
        return sidecar_record(loaded.head_name, None, "none", "none")
    return sidecar_record(loaded.head_name, head.origin, head.layout, head.precision, head.conventions)


def stages_of(loaded: Loaded) -> tuple["StageRecord", ...]:
    from skulk_core.formats.receipt_facts import StageRecord

    if loaded.engine is None:
        return ()
    epoch = loaded.engine.epoch
    ranks = zip((member.assignment for member in epoch.members), epoch.loaded, strict=True)
    return tuple(StageRecord(part.start, part.end, int(frame["nbytes"])) for part, frame in ranks)


def spread_of(loaded: Loaded) -> tuple[str, str]:
    """How several hosts divide the model, and what carries rows between them; both empty on one."""
    members = () if loaded.engine is None else loaded.engine.epoch.members
    if len(members) < 2:
        return "", ""
    part = members[0].assignment
    return part.shard.value, part.backend
