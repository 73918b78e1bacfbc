"""Time that has passed, by the wall clock and by the monotonic one, whichever says more.

The monotonic clock stands still while the machine is suspended, and the wall clock may be set back: a credential has ended when
either says so."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment by both clocks, seconds."""

    wall: float
    steady: float

    def passed(self) -> float:
        """Seconds since then."""
        return max(time.time() - self.wall, time.monotonic() - self.steady)

    def not_before(self, seconds: float) -> Instant:
        """The same, or so many seconds of the monotonic clock ago, whichever is later. Time in suspension still counts."""
        later = max(0.0, time.monotonic() - self.steady - seconds)
        return Instant(self.wall + later, self.steady + later)


def now() -> Instant:
    """Now."""
    return Instant(time.time(), time.monotonic())
