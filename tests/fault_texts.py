"""One text over a ring, broken at random places of its stream, and what a reader of the stream has seen of it."""

import random
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

from fault_rings import Fault, Ring

# Longest wait for a ring to go on, and for a text to end; reached only when something is wrong.
_RECOVERY_S, _END_S = 180.0, 300.0
_WENT_ON = re.compile(r"went on as epoch (\d+) on (.+?) after ([\d.]+) s")


@dataclass(frozen=True)
class Recovery:
    """A fault that the stream outlived. ``recovery_s`` is from the fault to the new ring's being where the text is."""

    ring: str
    fault: str
    broke: str
    after_nbytes: int
    recovery_s: float
    hosts: str


@dataclass
class Outcome:
    """Faults of one text: those outlived, those for which it was too late, and what was wrong."""

    recoveries: list[Recovery] = field(default_factory=list)
    not_done: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Stream:
    """A running `skulk run`: what it has written so far, read as soon as it is there."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.out, self.said = b"", b""
        self._news = threading.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, name), daemon=True)
            for pipe, name in ((process.stdout, "out"), (process.stderr, "said"))
        ]
        self._num_open = len(self._readers)
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[bytes], name: str) -> None:
        while more := pipe.read(4096):
            with self._news:
                setattr(self, name, getattr(self, name) + more)
                self._news.notify_all()
        with self._news:
            self._num_open -= 1
            self._news.notify_all()

    def wait_written(self, nbytes: int) -> bool:
        """Wait until stdout has ``nbytes``; False if it ends before."""
        with self._news:
            self._news.wait_for(lambda: len(self.out) >= nbytes or self._num_open < 2, _RECOVERY_S)
            return len(self.out) >= nbytes and self._num_open == 2

    def wait_recovered(self, count: int) -> bool:
        """Wait until it has said ``count`` times that it went on; False if it ends before."""
        with self._news:
            self._news.wait_for(lambda: len(self.went_on) >= count or not self._num_open, _RECOVERY_S)
            return len(self.went_on) >= count

    @property
    def went_on(self) -> list[tuple[str, str, str]]:
        """Epoch, hosts and seconds of each recovery that was told of."""
        return _WENT_ON.findall(" ".join(self.said.decode(errors="replace").split()))

    def end(self) -> int | None:
        """Exit code at its end; None if it does not end, and was killed."""
        try:
            code: int | None = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        for reader in self._readers:
            reader.join()
        return code


def broken_text(
    ring: Ring, arguments: Sequence[str], expected: bytes, faults: Sequence[Fault], dice: random.Random
) -> Outcome:
    """Have ``ring`` decode the text of ``arguments`` while ``faults`` happen, one after the other has been overcome.

    Each comes after a random number of bytes; the places leave room for those that follow.
    """
    outcome, not_done = Outcome(), list(faults)
    stream = Stream(ring.start("run", "demo", *arguments))
    try:
        while not_done and _one_fault(ring, stream, not_done[0], len(not_done), len(expected), outcome, dice):
            del not_done[0]
        outcome.not_done = not_done
        code = stream.end()
    finally:
        stream.process.kill()
        ring.heal()
    said = stream.said.decode(errors="replace")
    if code != 0:
        outcome.wrong.append(f"it ended with {code if code is not None else 'nothing, and was killed'}: {said}")
    if stream.out != expected:
        outcome.wrong.append(f"{_difference(stream.out, expected)}: {said}")
    if left := ring.left():
        outcome.wrong.append(f"left behind: {'; '.join(left)}")
    return outcome


def _one_fault(
    ring: Ring, stream: Stream, fault: Fault, num_left: int, end: int, outcome: Outcome, dice: random.Random
) -> bool:
    """Whether ``fault`` hit the text in its midst and was outlived."""
    room = (end - len(stream.out)) // (num_left + 1)
    if room < 1 or not stream.wait_written(len(stream.out) + dice.randint(1, room)):
        return False
    told, after_nbytes = len(stream.went_on), len(stream.out)
    began_s = time.monotonic()
    try:
        broke = fault.break_one(ring.ranks(stream.process.pid), dice.random())
    except (LookupError, ValueError):
        return False
    if not stream.wait_recovered(told + 1):
        if stream.process.poll() is None and len(stream.out) < end:
            outcome.wrong.append(f"not overcome after {_RECOVERY_S:.0f} s: {fault.name} ({broke})")
            stream.process.kill()
        return False
    recovery_s = time.monotonic() - began_s
    hosts = stream.went_on[-1][1]
    outcome.recoveries.append(Recovery(ring.name, fault.name, broke, after_nbytes, recovery_s, hosts))
    return True


def _difference(found: bytes, expected: bytes) -> str:
    same = next((at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return f"{len(found)} of {len(expected)} bytes were written"
    return f"other text from byte {same}: {found[same : same + 40]!r} where {expected[same : same + 40]!r} was due"
