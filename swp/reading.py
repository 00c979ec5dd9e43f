"""Bytes of a checkpoint for whoever takes tensors from it: straight from a folder, or fetched first, in parts."""

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

from skulk_core.hub.progress import OnProgress
from skulk_core.hub.ranges import FolderFiles, HubFiles, RangesRefused
from swp.fetch_plan import PART_NBYTES, ByteRange, FetchPlan, plan_fetch
from swp.part_cache import PartCache

_FETCHING = "fetching the head"


class TensorBytes(Protocol):
    """Where tensors are read from. `kept_in` is the folder that `prepare` writes to, None if it writes nothing."""

    @property
    def kept_in(self) -> Path | None: ...

    def missing_nbytes(self, wanted: Iterable[ByteRange]) -> int:
        """Bytes that `prepare` would have to write to the cache."""

    def prepare(self, wanted: Iterable[ByteRange], on_progress: OnProgress | None) -> None:
        """Make every byte of `wanted` readable."""

    def read(self, wanted: ByteRange) -> Iterator[bytes]:
        """The bytes, in pieces, of a range that was prepared."""

    def discard(self) -> None:
        """Nothing more will be read: remove what `prepare` kept."""


class FolderBytes:
    """A checkpoint in a folder."""

    kept_in = None

    def __init__(self, files: FolderFiles) -> None:
        self._files = files

    def missing_nbytes(self, wanted: Iterable[ByteRange]) -> int:
        """0: nothing is copied."""
        return 0

    def prepare(self, wanted: Iterable[ByteRange], on_progress: OnProgress | None) -> None:
        """Nothing to do."""

    def read(self, wanted: ByteRange) -> Iterator[bytes]:
        """Raises `FileError`, `SourceChanged`."""
        return self._files.read(wanted.file, wanted.begin, wanted.end)

    def discard(self) -> None:
        """Nothing to do."""


class FetchedBytes:
    """A checkpoint on the Hub; `num_jobs` parts are fetched at once into `cache`. `cancel` stops them."""

    def __init__(self, files: HubFiles, cache: PartCache, num_jobs: int, cancel: Event) -> None:
        self._files, self._cache, self._num_jobs, self._cancel = files, cache, num_jobs, cancel
        self._plan = FetchPlan((), 0)

    @property
    def kept_in(self) -> Path:
        """The cache's folder."""
        return self._cache.folder

    def missing_nbytes(self, wanted: Iterable[ByteRange]) -> int:
        """Bytes of the parts that are not in the cache yet."""
        return sum(part.nbytes for part in self._missing(plan_fetch(wanted, PART_NBYTES)))

    def prepare(self, wanted: Iterable[ByteRange], on_progress: OnProgress | None) -> None:
        """Fetch what is missing. Raises our Hub errors, `FileError`, `SourceChanged`."""
        self._plan = plan_fetch(wanted, PART_NBYTES)
        missing = self._missing(self._plan)
        counter = _Counter(self._plan.nbytes, sum(part.nbytes for part in missing), on_progress)
        whole_files = {part.file for part in self._in_parallel(missing, counter)}
        for file in sorted(whole_files):
            self._sweep(file, [part for part in missing if part.file == file], counter)

    def read(self, wanted: ByteRange) -> Iterator[bytes]:
        """Raises `FileError`."""
        for part in self._plan.covering(wanted):
            yield from self._cache.read(part, max(part.begin, wanted.begin), min(part.end, wanted.end))

    def discard(self) -> None:
        """Empty the cache, unless somebody else uses it."""
        self._cache.discard()

    def _missing(self, plan: FetchPlan) -> list[ByteRange]:
        return [part for part in plan.parts if self._cache.find(self._files.stat(part.file), part) is None]

    def _in_parallel(self, parts: list[ByteRange], counter: "_Counter") -> list[ByteRange]:
        """Fetch the parts; those of files that the server sends only whole are returned."""
        refused: list[ByteRange] = []
        sent_whole: set[str] = set()

        def fetch(part: ByteRange) -> None:
            stored = self._files.stat(part.file)
            if part.file in sent_whole:
                refused.append(part)
                return
            try:
                chunks = counter.counted(self._files.read(part.file, part.begin, part.end))
                self._cache.add(stored, part, chunks)
            except RangesRefused:
                sent_whole.add(part.file)
                refused.append(part)

        with ThreadPoolExecutor(self._num_jobs, thread_name_prefix="fetch") as pool:
            try:
                futures = [pool.submit(fetch, part) for part in parts]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [error for future in done if (error := future.exception()) is not None]
                if failed:
                    raise failed[0]
            except BaseException:
                self._cancel.set()
                pool.shutdown(cancel_futures=True)
                raise
        return refused

    def _sweep(self, file: str, parts: list[ByteRange], counter: "_Counter") -> None:
        """Read a whole file once and keep the parts of it, which are in order."""
        stored = self._files.stat(file)
        wanted = [part for part in parts if self._cache.find(stored, part) is None]
        stream = _Sweep(self._files.read_whole(file))
        for part in wanted:
            self._cache.add(stored, part, counter.counted(stream.upto(part.begin, part.end)))


class _Sweep:
    """Ranges out of one stream, in order."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest, self._at = chunks, b"", 0

    def upto(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes `[begin, end)`; what is before them is dropped."""
        while self._at < end:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                return
            wanted = chunk[: end - self._at]
            self._rest = chunk[len(wanted) :]
            skipped = max(begin - self._at, 0)
            self._at += len(wanted)
            if wanted[skipped:]:
                yield wanted[skipped:]


class _Counter:
    """Bytes fetched so far, by all threads."""

    def __init__(self, total_nbytes: int, missing_nbytes: int, on_progress: OnProgress | None) -> None:
        self._total_nbytes, self._done_nbytes = total_nbytes, total_nbytes - missing_nbytes
        self._on_progress, self._one_at_a_time = on_progress, Lock()
        self._report()

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            with self._one_at_a_time:
                self._done_nbytes += len(chunk)
                self._report()
            yield chunk

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(_FETCHING, self._done_nbytes, self._total_nbytes)
