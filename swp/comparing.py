"""Which tensors of a head are byte-equal copies of the trunk's: samples first, whole tensors only if those agree."""

import hashlib
from collections.abc import Iterator, Sequence

from skulk_core.formats.provenance import SharedTensor, SourcePiece
from skulk_core.hub.ranges import CheckpointFiles, read_range
from skulk_core.hub.stored_tensors import StoredTensor
from swp.dequant import Bytes
from swp.inspection import Twin, range_of
from swp.reading import TensorBytes

_SAMPLE_NBYTES = 4096
_COMPARE_NBYTES = 1 << 22


def samples_agree(files: CheckpointFiles, twin: Twin) -> bool:
    """Whether the beginnings, middles and ends are the same bytes."""
    nbytes = twin.head.nbytes
    length = min(_SAMPLE_NBYTES, nbytes)
    for begin in sorted({0, (nbytes - length) // 2, nbytes - length}):
        ours, theirs = (
            read_range(files, tensor.file, tensor.begin + begin, tensor.begin + begin + length)
            for tensor in (twin.head, twin.trunk)
        )
        if ours != theirs:
            return False
    return True


def find_shared(twins: Sequence[Twin], data: TensorBytes) -> tuple[SharedTensor, ...]:
    """Those of `twins` that are equal to their last byte; both sides must have been prepared."""
    return tuple(shared for twin in twins if (shared := _compare(twin, data)) is not None)


def piece(role: str, tensor: StoredTensor, sha256: str) -> SourcePiece:
    """A tensor of upstream as the manifest has it."""
    return SourcePiece(role, tensor.name, tensor.file, tensor.begin, tensor.end, tensor.dtype, tensor.shape, sha256)


def _compare(twin: Twin, data: TensorBytes) -> SharedTensor | None:
    digest = hashlib.sha256()
    pairs = zip(_even(twin.head, data), _even(twin.trunk, data), strict=True)
    for ours, theirs in pairs:
        if ours != theirs:
            return None
        digest.update(ours)
    sha256 = digest.hexdigest()
    return SharedTensor(
        twin.head.name,
        twin.trunk.name,
        twin.head.nbytes,
        "whole",
        piece("weight", twin.head, sha256),
        piece("weight", twin.trunk, sha256),
    )


def _even(tensor: StoredTensor, data: TensorBytes) -> Iterator[bytearray]:
    """A tensor's bytes in pieces whose sizes depend on its own size alone."""
    chunks = Bytes(data.read(range_of(tensor)), tensor.file)
    for begin in range(0, tensor.nbytes, _COMPARE_NBYTES):
        yield chunks.take(min(_COMPARE_NBYTES, tensor.nbytes - begin))
