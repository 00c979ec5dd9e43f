"""Which byte ranges of which files to fetch, in which parts. Pure: ranges in, parts out."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

PART_NBYTES = 32 << 20
# Bytes that nobody wants may be fetched where that joins two requests, up to this share of those wanted.
_MAX_WASTE = 0.02
_MAX_GAP_NBYTES = 1 << 20


@dataclass(frozen=True, order=True)
class ByteRange:
    """Bytes `[begin, end)` of a file."""

    file: str
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class FetchPlan:
    """Parts to fetch, sorted by file and place, none empty, none overlapping another.

    The same ranges give the same parts, so that a second run finds what a first one fetched.
    """

    parts: tuple[ByteRange, ...]
    wanted_nbytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    def covering(self, wanted: ByteRange) -> Iterator[ByteRange]:
        """The parts that hold the bytes of `wanted`, in order. All of them must be planned."""
        at = wanted.begin
        index = bisect_right(self.parts, (wanted.file, at), key=lambda part: (part.file, part.begin)) - 1
        while at < wanted.end:
            part = self.parts[index]
            assert part.file == wanted.file, wanted
            assert part.begin <= at < part.end, wanted
            yield part
            at, index = part.end, index + 1


def plan_fetch(wanted: Iterable[ByteRange], part_nbytes: int = PART_NBYTES) -> FetchPlan:
    """Join what touches or nearly touches, then cut into parts of at most `part_nbytes`."""
    merged = _merged(wanted)
    wanted_nbytes = sum(one.nbytes for one in merged)
    joined = _joined(merged, int(wanted_nbytes * _MAX_WASTE))
    parts = tuple(part for one in joined for part in _split(one, part_nbytes))
    return FetchPlan(parts, wanted_nbytes)


def _merged(wanted: Iterable[ByteRange]) -> list[ByteRange]:
    """Sorted ranges, those that overlap or touch made one."""
    out: list[ByteRange] = []
    for one in sorted(one for one in wanted if one.nbytes):
        if out and out[-1].file == one.file and one.begin <= out[-1].end:
            out[-1] = ByteRange(one.file, out[-1].begin, max(out[-1].end, one.end))
        else:
            out.append(one)
    return out


def _joined(ranges: list[ByteRange], max_waste_nbytes: int) -> list[ByteRange]:
    """`ranges` joined over their smallest gaps, as far as the waste allows."""
    gaps = sorted(
        (after.begin - before.end, index)
        for index, (before, after) in enumerate(pairwise(ranges))
        if before.file == after.file and after.begin - before.end <= _MAX_GAP_NBYTES
    )
    bridged: set[int] = set()
    left_nbytes = max_waste_nbytes
    for gap_nbytes, index in gaps:
        if gap_nbytes > left_nbytes:
            break
        left_nbytes -= gap_nbytes
        bridged.add(index)
    out: list[ByteRange] = []
    for index, one in enumerate(ranges):
        if index - 1 in bridged:
            out[-1] = ByteRange(one.file, out[-1].begin, one.end)
        else:
            out.append(one)
    return out


def _split(one: ByteRange, part_nbytes: int) -> Iterator[ByteRange]:
    for begin in range(one.begin, one.end, part_nbytes):
        yield ByteRange(one.file, begin, min(begin + part_nbytes, one.end))
