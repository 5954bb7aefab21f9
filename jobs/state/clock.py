"""Redis' clock, the clock of all of Darkroom. In Redis, times are milliseconds of the Unix epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

#: how long an answer of Redis' clock is good for, in seconds
CLOCK_SECONDS = 30.0


class Clock:
    """Redis' clock between two of its answers: the last one, and the seconds since then.

    The seconds are those of a clock that nobody can set: when a host's time is corrected by an hour, no deadline has passed.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._heard_at = float("-inf")
        #: Redis' time, in milliseconds, when `seconds` was zero; the host's until Redis was heard
        self._zero_ms = time.time() * 1000 - seconds() * 1000

    @property
    def is_fresh(self) -> bool:
        """Whether Redis was heard within CLOCK_SECONDS."""
        return self._seconds() - self._heard_at < CLOCK_SECONDS

    def set(self, redis_ms: int) -> None:
        """Take over an answer of Redis' clock."""
        self._heard_at = self._seconds()
        self._zero_ms = redis_ms - self._heard_at * 1000

    def now(self) -> datetime:
        """Redis' time."""
        return from_ms(self._zero_ms + self._seconds() * 1000)


def from_ms(ms: float) -> datetime:
    """The aware time at this millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def to_ms(at: datetime) -> int:
    """The millisecond of a time, rounded down."""
    return int(at.timestamp() * 1000)


def due_ms(at: datetime) -> int:
    """The millisecond by which a time has come, rounded up: a job that is taken a fraction early would have to wait again."""
    return math.ceil(at.timestamp() * 1000)
