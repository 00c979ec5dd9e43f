"""A case is measured on one ring alone: what a lost host disturbed is measured again, another ring not at all."""

from collections.abc import Callable
from typing import TypeVar

from skulk_core.decode.engine import Engine
from skulk_core.errors import ClusterError, ClusterLost, RingChanged, WorkerFailed

T = TypeVar("T")


class SteadyRing:
    """The ring that a case is measured on; ``losses`` counts how often a host of it was lost and came back."""

    def __init__(self, engine: Engine) -> None:
        self.losses = 0
        self._engine, self._parts = engine, engine.parts

    def disturbed(self) -> bool:
        """Whether a host was lost in the text decoded last, whose times are no measurement. Raises `RingChanged`."""
        self.require()
        lost = self._engine.stats.recoveries
        self.losses += lost
        return lost > 0

    def measured(self, step: Callable[[], T]) -> T:
        """What ``step`` measures on this ring, again if a host was lost meanwhile. Raises `RingChanged`."""
        while True:
            try:
                found = step()
            except ClusterError as error:
                told = isinstance(error, WorkerFailed) and error.error
                if isinstance(error, ClusterLost) or told:
                    raise
                self.losses += 1
                continue
            self.require()
            return found

    def require(self) -> None:
        """Raise `RingChanged` if the ranks are not those that the case began with."""
        if self._engine.parts != self._parts:
            raise RingChanged(len(self._parts), len(self._engine.parts))
