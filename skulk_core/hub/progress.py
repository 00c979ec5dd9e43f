"""Progress of a download as plain numbers: an adapter between huggingface_hub's progress bars and one callback.

The client reports progress by making objects of a `tqdm_class` and calling them from its worker threads. The class made
here draws nothing: it passes the numbers on. It is also how a plain download is stopped, because on Ctrl-C the client
waits for its worker threads, and they call nothing else of ours.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Event, RLock, Thread
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from huggingface_hub.utils._xet import abort_xet_session

_R = TypeVar("_R")

# Beside the bytes of the files, the client counts the bytes on the wire, fewer where it deduplicates, on a second bar.
_WIRE_BAR = "Downloading bytes"


class OnProgress(Protocol):
    """Called from any thread, one call at a time."""

    def __call__(self, description: str, num_bytes_done: int, num_bytes_total: int | None) -> None:
        """`num_bytes_total` is None while unknown, and grows as the client starts on further files."""


class Cancelled(Exception):
    """Raised inside the client's worker threads to end them. Never leaves this package."""


def bar_class(description: str, on_progress: OnProgress | None, cancel: Event) -> type[Any]:
    """A `tqdm_class` for huggingface_hub that reports to `on_progress` and stops its download once `cancel` is set."""

    class Bar(_Bar):
        _report = staticmethod(on_progress) if on_progress else None
        _what, _cancel, _one_at_a_time = description, cancel, RLock()

    return Bar


def interruptible(work: Callable[[], _R], cancel: Event) -> _R:
    """Run the download `work` in a thread and wait for it. Ctrl-C stops it, lets it clean up and is then raised."""
    outcome: Future[_R] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
            outcome.set_exception(error)

    thread = Thread(target=run, name="download")
    try:
        thread.start()
        return outcome.result()
    except KeyboardInterrupt:
        cancel.set()
        # The client's other transport takes no exception from a progress bar.
        abort_xet_session()  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):  # Ctrl-C may come before the thread runs; then there is nothing to wait for
            thread.join()
        raise


class _Bar:
    """As much of tqdm as huggingface_hub calls."""

    _report: OnProgress | None
    _what: str
    _cancel: Event
    _one_at_a_time: RLock

    def __init__(self, *_: object, **options: Any) -> None:
        self.n: int = options.get("initial") or 0
        self.total: int | None = options.get("total")
        self.format_dict: dict[str, object] = {}
        self._counts_bytes = options.get("unit") == "B" and options.get("desc") != _WIRE_BAR

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def update(self, n: float | None = 1) -> None:
        if self._cancel.is_set():
            raise Cancelled
        with self._one_at_a_time:
            self.n += int(n or 0)
            self.refresh()

    def refresh(self) -> None:
        with self._one_at_a_time:
            if self._counts_bytes and self._report:
                self._report(self._what, self.n, self.total or None)

    def close(self) -> None:
        pass

    def set_description(self, *_: object, **__: object) -> None:
        pass

    def set_description_str(self, *_: object, **__: object) -> None:
        pass

    def set_postfix_str(self, *_: object, **__: object) -> None:
        pass
