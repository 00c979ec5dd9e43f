"""How long an answer of the decider may take, from how long such answers took: what is late is stuck."""

import statistics
from collections import deque

# Until so many were seen, one is given all the time that kernels, first touches and other programs may take.
_LEARNT_FROM = 8
_UNKNOWN_S = 600.0
# The same after another ring was measured: its hosts were more, or had compiled their kernels.
_LEAST_ANEW_S, _TIMES_ANEW = 60.0, 4.0
# A machine that starts to swap, or a laptop that wakes up, is slower than that only if it is lost for us anyway.
_LEAST_S, _TIMES = 5.0, 50.0


class Pace:
    """Measured seconds of answers of one kind, and the deadline that follows."""

    def __init__(self, unknown_s: float = _UNKNOWN_S) -> None:
        self._seconds: deque[float] = deque(maxlen=64)
        self._unknown_s = unknown_s

    @property
    def deadline_s(self) -> float:
        """Seconds after which an answer will not come any more."""
        if len(self._seconds) < _LEARNT_FROM:
            return self._unknown_s
        return max(_LEAST_S, _TIMES * statistics.median(self._seconds), 4 * max(self._seconds))

    def anew(self) -> "Pace":
        """For answers of another ring over the same model."""
        if len(self._seconds) < _LEARNT_FROM:
            return Pace(self._unknown_s)
        return Pace(min(_UNKNOWN_S, max(_LEAST_ANEW_S, _TIMES_ANEW * self.deadline_s)))

    @property
    def median_s(self) -> float:
        """Median, 0 before anything was seen."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    def took(self, seconds: float) -> None:
        """One more answer."""
        self._seconds.append(seconds)
