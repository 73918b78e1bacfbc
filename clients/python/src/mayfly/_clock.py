"""Elapsed time by the wall clock and by the monotonic clock, whichever gives more.

The monotonic clock stops while the machine is suspended, and the wall clock may be set back: a credential has expired
when either clock says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instant:
    """A time by both clocks, seconds."""

    wall: float
    steady: float

    def passed(self) -> float:
        """Seconds since this time."""
        return max(time.time() - self.wall, time.monotonic() - self.steady)

    def not_before(self, seconds: float) -> Instant:
        """This time, or `seconds` ago by the monotonic clock, whichever is later. Time in suspension still counts."""
        later = max(0.0, time.monotonic() - self.steady - seconds)
        return Instant(self.wall + later, self.steady + later)


def now() -> Instant:
    """The present time by both clocks."""
    return Instant(time.time(), time.monotonic())
