"""How launcher and worker speak: JSON objects, each behind its length, after a marker that no login banner contains."""

import json
import struct
from typing import Any, BinaryIO

from skulk_core.errors import SkulkError

START_MARKER = b"\x00\x01skulk worker, protocol 1\x01\x00"
# A prompt of a million tokens fits; what is longer is not a frame of ours.
_MOST_NBYTES = 64 << 20
# A banner may be long, but a program that is no worker must not be read for ever.
_MOST_BANNER_NBYTES = 1 << 20

Frame = dict[str, Any]


class FrameError(SkulkError):
    """What came over a pipe is no frame."""


def write_frame(stream: BinaryIO, frame: Frame) -> None:
    """Write one frame whole. Raises `OSError` if nobody reads any more."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    data = memoryview(struct.pack(">I", len(body)) + body)
    while data:
        written = stream.write(data)
        data = data[written if written is not None else 0 :]
    stream.flush()


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame; None at the end of the stream. Raises `FrameError`."""
    head = _read(stream, 4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack(">I", head)
    if length > _MOST_NBYTES:
        raise FrameError(f"a frame of {length} bytes")
    body = _read(stream, length)
    if len(body) < length:
        return None
    try:
        frame = json.loads(body)
    except ValueError as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("kind"), str):
        raise FrameError("an object without a kind")
    return frame


def skip_banner(stream: BinaryIO) -> bytes | None:
    """Read up to the start marker; None when it was met, else the last of what the program wrote instead."""
    seen = bytearray()
    while not seen.endswith(START_MARKER):
        # byte by byte: what follows the marker belongs to the first frame
        byte = stream.read(1)
        if not byte or len(seen) > _MOST_BANNER_NBYTES:
            return bytes(seen[-2000:])
        seen += byte
    return None


def _read(stream: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            break
        data += part
    return bytes(data)
