"""Redis' time, by which all of Darkroom goes; on the wire it is milliseconds of the epoch."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

#: how long the measured distance to Redis' clock is trusted
CLOCK_SECONDS = 30.0


class Clock:
    """Redis' clock, kept by its measured distance to ours."""

    def __init__(self) -> None:
        self._ahead_ms = 0.0
        self._heard_at = float("-inf")

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self._heard_at < CLOCK_SECONDS

    def set(self, redis_ms: int) -> None:
        self._ahead_ms = redis_ms - time.time() * 1000
        self._heard_at = time.monotonic()

    def now(self) -> datetime:
        return from_ms(time.time() * 1000 + self._ahead_ms)


def from_ms(ms: float) -> datetime:
    """The aware time at this millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def to_ms(at: datetime) -> int:
    """The millisecond in which this time lies."""
    return int(at.timestamp() * 1000)


def due_ms(at: datetime) -> int:
    """The millisecond by which the time has come: what is popped a fraction early would wait for its next turn."""
    return math.ceil(at.timestamp() * 1000)
