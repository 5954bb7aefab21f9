"""Redis' time, by which all of Darkroom goes; on the wire it is milliseconds of the epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

#: how long the measured distance to Redis' clock is trusted
CLOCK_SECONDS = 30.0


class Clock:
    """Redis' clock: what it said last, and the seconds since then.

    They are counted by a clock that nobody can set: when a host's time is corrected by an hour, no deadline is over.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._heard_at = float("-inf")
        #: Redis' time when ours began to count
        self._began_ms = time.time() * 1000 - seconds() * 1000

    @property
    def fresh(self) -> bool:
        return self._seconds() - self._heard_at < CLOCK_SECONDS

    def set(self, redis_ms: int) -> None:
        self._heard_at = self._seconds()
        self._began_ms = redis_ms - self._heard_at * 1000

    def now(self) -> datetime:
        return from_ms(self._began_ms + self._seconds() * 1000)


def from_ms(ms: float) -> datetime:
    """The aware time at this millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def to_ms(at: datetime) -> int:
    """The millisecond in which this time lies."""
    return int(at.timestamp() * 1000)


def due_ms(at: datetime) -> int:
    """The millisecond by which the time has come: what is popped a fraction early would wait for its next turn."""
    return math.ceil(at.timestamp() * 1000)
