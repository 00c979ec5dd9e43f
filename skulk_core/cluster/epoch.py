"""One epoch: workers that were started together, agree on what they loaded, and form one ring. It is never repaired."""

import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skulk_core.cluster.assignment import Assignment
from skulk_core.cluster.backends import Backend, settings_for
from skulk_core.cluster.channel import Channel, WorkerProcess
from skulk_core.cluster.delay_line import LinkShape
from skulk_core.cluster.frames import Frame
from skulk_core.cluster.peers import Host
from skulk_core.cluster.reaching import most_cut_off
from skulk_core.cluster.slow_links import SlowLinks
from skulk_core.cluster.transport import start
from skulk_core.errors import Cut, HostMismatch, LinkCut, MemoryFull, RingError, SkulkError

LEASE_S = 8.0
# Importing and reading files can keep a process from beating.
_LOAD_LEASE_S = 60.0
# Ranks have loaded by then, and reach each other; what is left is to connect. Less than the ranks themselves wait.
_JOIN_S = 40.0
_TICK_S = 0.1
# Three beats.
_SILENCE_S = 3.0
_CLOSE_S = 3.0
_WITNESS_S = 1.0
# Arithmetic and protocol are theirs: ranks that differ in them could disagree, or not understand each other.
_SAME_VERSIONS = ("skulk-mtp", "mlx", "mlx-lm")

# What quick ranks say before slow ones have said hello.
_EARLY = ("reserved", "reached", "found", "loaded")

Starter = Callable[[Host, Sequence[str], Mapping[str, str]], WorkerProcess]
Check = Callable[[], None]
OnLoading = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Member:
    """A rank's host and what it is to do."""

    host: Host
    assignment: Assignment


class Epoch:
    """The workers of one plan. Its methods raise `SkulkError` as soon as one of the workers is known to be lost.

    One that has no memory for the text is not lost: `MemoryFull`. It stays where it is, and the ring stands still.

    With ``links`` every link of the ring is made slower than it is, by `slow_links`; None where none is.
    """

    def __init__(
        self,
        members: Sequence[Member],
        check: Check,
        *,
        starter: Starter = start,
        lease_s: float = LEASE_S,
        links: LinkShape | None = None,
    ) -> None:
        assert [member.assignment.rank for member in members] == list(range(len(members)))
        self.members, self._check = tuple(members), check
        self.decider = next(member.assignment.rank for member in members if member.assignment.decides)
        self.loaded: list[Frame] = []
        self._is_standing = False
        self._aside: deque[tuple[int, Frame | None]] = deque()
        self._events: queue.SimpleQueue[tuple[int, Frame | None]] = queue.SimpleQueue()
        self._channels: list[Channel] = []
        self._starter, self._working_lease_s, self._lease_s = starter, lease_s, _LOAD_LEASE_S
        self._links = links if links is not None and not links.is_real else None
        self.slow_links: SlowLinks | None = None
        # what the decider said while something else was waited for
        self._unread: deque[Frame] = deque()
        self._early: dict[str, dict[int, Frame]] = {kind: {} for kind in _EARLY}
        self._is_joining = False

    @property
    def number(self) -> int:
        """Which epoch it is."""
        return self.members[0].assignment.epoch

    @property
    def hosts(self) -> tuple[str, ...]:
        """By rank."""
        return tuple(member.host.name for member in self.members)

    def begin(self, on_loading: OnLoading | None = None) -> None:
        """Start every worker, have them load, compare what they have, and form the ring. Raises `SkulkError`."""
        for member in self.members:
            process = self._starter(member.host, ["worker", "--lease", f"{self._working_lease_s:g}"], {})
            self._channels.append(Channel(member.assignment.rank, process, self._events))
        for channel, member in zip(self._channels, self.members, strict=True):
            channel.send("plan", **member.assignment.as_frame())
        hello = self._from_all("hello", on_loading)
        for rank, frame in enumerate(hello):
            for package in _SAME_VERSIONS:
                self._same(
                    rank, f"the version of {package}", frame["versions"], hello[self.decider]["versions"], package
                )
        kept = self._from_all("reserved", on_loading)
        if len(self.members) > 1 and self.members[0].assignment.backend == Backend.RING:
            self._try_links([frame["tried_port"] for frame in kept], on_loading)
        self._compare_found(self._from_all("found", on_loading))
        self.loaded = self._from_all("loaded", on_loading)
        if len(self.members) > 1:
            self._form_ring([frame["port"] for frame in kept])
        self._lease_s = self._working_lease_s

    def _addresses(self, ports: Sequence[int]) -> list[str]:
        """Where every rank listens, `ip:port`."""
        return [f"{member.assignment.address}:{port}" for member, port in zip(self.members, ports, strict=True)]

    def _try_links(self, tried_ports: Sequence[int], on_loading: OnLoading | None) -> None:
        """Have every rank call the next one, while all of them load. Raises `LinkCut`."""
        addresses = self._addresses(tried_ports)
        following = [(rank + 1) % len(addresses) for rank in range(len(addresses))]
        for channel, after in zip(self._channels, following, strict=True):
            channel.send("reach", address=addresses[after])
        cuts = [
            Cut(self.hosts[rank], self.hosts[after], self.members[after].assignment.address, frame["why_not"])
            for rank, (after, frame) in enumerate(zip(following, self._from_all("reached", on_loading), strict=True))
            if frame["why_not"]
        ]
        if cuts:
            here = [member.host.name for member in self.members if member.host.is_local]
            raise LinkCut(most_cut_off(cuts, self.hosts, here), cuts)

    def _form_ring(self, ports: Sequence[int]) -> None:
        addresses = self._addresses(ports)
        hosts, backend = [member.host for member in self.members], self.members[0].assignment.backend
        called = None
        if self._links is not None:
            self.slow_links = SlowLinks(self._links, addresses)
            called = self.slow_links.addresses
        for channel, told in zip(self._channels, settings_for(backend, hosts, addresses, called), strict=True):
            channel.send("ring", settings=dict(told.environment), files=dict(told.files))
        self._is_joining = True
        self._from_all("joined", deadline_s=_JOIN_S)
        self._is_joining = False

    def ask(self, kind: str, **fields: object) -> None:
        """Tell the decider something."""
        self._channels[self.decider].send(kind, **fields)

    def answer(self, deadline_s: float | None = None) -> Frame:
        """The next thing the decider says. Raises `SkulkError` if a worker is lost or ``deadline_s`` passes."""
        if self._unread:
            return self._unread.popleft()
        began_s = time.monotonic()
        while True:
            rank, frame = self._next(deadline_s, began_s)
            if rank == self.decider:
                return frame

    def stands_still(self) -> bool:
        """Whether a rank was full in the midst of a text, be it one that nobody wanted more of: no other can follow."""
        while not self._events.empty():
            rank, frame = self._events.get()
            if frame is not None and _stands_still(frame):
                self._is_standing = True
            else:
                self._aside.append((rank, frame))
        return self._is_standing

    def full(self, frame: Frame) -> MemoryFull:
        """What the decider said when it had no memory for more of a text."""
        self._is_standing = self._is_standing or frame["broken"]
        return MemoryFull(frame["needed"], frame["left"], self.hosts[self.decider])

    def counts(self) -> tuple[int, int]:
        """Messages and bytes that all ranks have sent their neighbours so far."""
        for channel in self._channels:
            channel.send("count")
        frames = self._from_all("counted", deadline_s=self._lease_s)
        return sum(frame["messages"] for frame in frames), sum(frame["nbytes"] for frame in frames)

    def peaks(self, *, reset: bool) -> tuple[int, ...]:
        """The most bytes that MLX held on each rank since the last ``reset``, which this may be one of."""
        for channel in self._channels:
            channel.send("peak", reset=reset)
        return tuple(int(frame["nbytes"]) for frame in self._from_all("peaked", deadline_s=self._lease_s))

    def close(self, *, at_once: bool = False, impatient: Callable[[], bool] = lambda: False) -> None:
        """End every worker; those that do not end by themselves are killed. Returns when none is left here."""
        if not at_once:
            for channel in self._channels:
                channel.close()
            until_s = time.monotonic() + _CLOSE_S
            for channel in self._channels:
                while not channel.wait(_TICK_S) and time.monotonic() < until_s and not impatient():
                    pass
        for channel in self._channels:
            if at_once or not channel.wait(0):
                channel.kill()
        if self.slow_links is not None:
            self.slow_links.close()

    def _next(self, deadline_s: float | None, began_s: float) -> tuple[int, Frame]:
        """The next frame of any worker."""
        while True:
            self._check()
            try:
                rank, frame = self._aside.popleft() if self._aside else self._events.get(timeout=_TICK_S)
            except queue.Empty:
                self._look_for_silence(deadline_s, began_s)
                continue
            if frame is None or frame["kind"] == "failed":
                raise self._cause(rank)
            if _stands_still(frame):
                self._is_standing = True
                raise MemoryFull(frame["needed"], frame["left"], self.hosts[rank])
            return rank, frame

    def _look_for_silence(self, deadline_s: float | None, began_s: float) -> None:
        for channel in self._channels:
            if channel.silent_s > self._lease_s:
                raise channel.failure(f"nothing was heard of it for {channel.silent_s:.0f} s")
        waited_s = time.monotonic() - began_s
        if deadline_s is not None and waited_s > deadline_s:
            if self._is_joining:
                # MLX lets nobody beat while it waits: silence says nothing of who is at fault
                raise RingError(f"the ranks' neighbours did not connect within {waited_s:.0f} s")
            silent = max(self._channels, key=lambda channel: channel.silent_s)
            if silent.silent_s < _SILENCE_S:
                # nobody is to blame: it may be a link
                raise RingError(f"no progress for {waited_s:.1f} s, though every worker is alive")
            raise silent.failure(
                f"no progress for {waited_s:.1f} s, and it was silent for the last {silent.silent_s:.1f}"
            )

    def _cause(self, rank: int) -> SkulkError:
        """The failure that brought the others down: the loss of a rank shows first at whichever is quickest.

        A worker that tells of a broken ring is a witness; one that ends without a word, or is silent, is the cause. If
        there is none it was a link, and who tells of it first means nothing.
        """
        until_s = time.monotonic() + _WITNESS_S
        while self._channels[rank].is_witness and (left_s := until_s - time.monotonic()) > 0:
            try:
                other, frame = self._events.get(timeout=left_s)
            except queue.Empty:
                break
            if frame is None and not self._channels[other].is_witness:
                rank = other
        told = self._channels[rank]
        if not told.lost_a_neighbour:
            return told.failure()
        silent = max(self._channels, key=lambda channel: channel.silent_s)
        if silent.silent_s > _SILENCE_S:
            return silent.failure(f"nothing was heard of it for {silent.silent_s:.0f} s")
        return RingError(f"a link of the ring was lost, as {told.host} says")

    @property
    def pids(self) -> list[int | None]:
        """The workers' process ids on their hosts, by rank."""
        return [channel.pid for channel in self._channels]

    def _from_all(
        self,
        kind: str,
        on_loading: OnLoading | None = None,
        deadline_s: float | None = None,
    ) -> list[Frame]:
        began_s = time.monotonic()
        found = self._early.get(kind, {})
        while len(found) < len(self._channels):
            rank, frame = self._next(deadline_s, began_s)
            if frame["kind"] in self._early:
                self._early[frame["kind"]][rank] = frame
            elif frame["kind"] == kind:
                found[rank] = frame
            elif frame["kind"] == "loading" and on_loading is not None:
                on_loading(f"{self.hosts[rank]}: {frame['what']}", frame["done"], frame["total"])
            elif rank == self.decider:
                self._unread.append(frame)
        return [found[rank] for rank in range(len(found))]

    def _compare_found(self, found: Sequence[Frame]) -> None:
        """Refuse ranks that are about to load another model, naming the first that differs from the decider."""
        ours = found[self.decider]
        for rank, theirs in enumerate(found):
            self._same(rank, "the digest of the configuration", theirs, ours, "config")
            for name in sorted(set(theirs["files"]) & set(ours["files"])):
                self._same(rank, f"the digest of {name}", theirs["files"], ours["files"], name)

    def _same(self, rank: int, what: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], key: str) -> None:
        if theirs[key] != ours[key]:
            raise HostMismatch(self.hosts[rank], what, str(theirs[key]), str(ours[key]), self.hosts[self.decider])


def _stands_still(frame: Frame) -> bool:
    """Whether it is what a rank says that cannot run a window. The decider says of which text it speaks."""
    return bool(frame["kind"] == "full" and "text" not in frame)
