"""Ctrl-C during a download."""

import signal
from threading import Event, main_thread

import pytest

from skulk_core.hub.progress import Cancelled, bar_class, interruptible


def test_ctrl_c_stops_the_download_and_waits_until_it_has_cleaned_up() -> None:
    cancel, cleaned_up = Event(), Event()

    def work() -> None:
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
        assert cancel.wait(60)
        cleaned_up.set()

    # a test run started in the background of a script ignores the signal
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(work, cancel)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert cleaned_up.is_set()


def test_a_stopped_download_ends_at_its_next_bytes() -> None:
    cancel, heard = Event(), []
    bar = bar_class("owner/tiny", lambda *numbers: heard.append(numbers), cancel)(unit="B", total=10)
    bar.update(4)
    cancel.set()
    with pytest.raises(Cancelled):
        bar.update(4)
    assert heard == [("owner/tiny", 4, 10)]


def test_what_the_work_raises_comes_through() -> None:
    def work() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        interruptible(work, Event())
