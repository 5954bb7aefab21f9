"""Deliveries: the messages that a job sends to its own webhook. Frozen values; when to try again is a pure function."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

#: the pause after each failed try; then the last one again, until a day is over
PAUSES_SECONDS = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0)
#: after so long a delivery is given up
GIVE_UP_AFTER = timedelta(hours=24)
#: two processes' ideas of Redis' time differ by less; what one of them made due is due for the other
CLOCKS_DIFFER = timedelta(milliseconds=100)
#: the log keeps this many of the latest tries
LOG_LENGTH = 12
#: the shortest and the longest pause of a delivery that found no place; between them, a quarter of its age
POSTPONED_SECONDS = (5.0, 3600.0)


@dataclass(frozen=True)
class Try:
    """One try of a delivery: the receiver's HTTP status, or why there was none."""

    at: datetime
    status: int | None = None
    problem: str | None = None

    @property
    def is_accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Delivery:
    """One message about one event, delivered at least once."""

    #: the same for every try: the receiver can tell a repeated message by it
    id: str
    #: the status that the job came to
    event: str
    created_at: datetime
    #: when it is tried next; None: delivered, or given up
    next_at: datetime | None
    delivered_at: datetime | None = None
    tries: int = 0
    #: since when it is tried: the enqueue of the message, or a person's word
    since: datetime | None = None
    log: tuple[Try, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.next_at is not None

    def is_due(self, now: datetime) -> bool:
        """Whether it is to be tried now."""
        return self.next_at is not None and self.next_at <= now + CLOCKS_DIFFER

    @property
    def give_up_at(self) -> datetime:
        """The last try is made then."""
        return (self.since or self.created_at) + GIVE_UP_AFTER

    def tried(self, attempt: Try) -> Delivery:
        """The delivery after one more try."""
        log = (*self.log, attempt)[-LOG_LENGTH:]
        done = replace(self, tries=self.tries + 1, log=log)
        if attempt.is_accepted:
            return replace(done, next_at=None, delivered_at=attempt.at)
        # 410 Gone is the receiver's word that it wants no more.
        if attempt.status == 410 or attempt.at >= self.give_up_at:
            return replace(done, next_at=None)
        return replace(done, next_at=self._later(attempt.at, _pause_seconds(self.tries)))

    def postponed(self, now: datetime) -> Delivery:
        """The delivery that could not be tried, because its host's places were taken.

        The older it is, the longer it waits: a crowd before a dead host must not keep the sweep busy.
        """
        if now >= self.give_up_at:
            return self.tried(Try(now, problem="its host has too many others to take"))
        shortest, longest = POSTPONED_SECONDS
        age_seconds = (now - (self.since or self.created_at)).total_seconds()
        return replace(self, next_at=self._later(now, _spread(min(max(age_seconds / 4, shortest), longest))))

    def restarted(self, now: datetime) -> Delivery:
        """The delivery, to be tried anew by a person's word."""
        return replace(self, next_at=now, since=now, delivered_at=None, tries=0)

    def _later(self, now: datetime, seconds: float) -> datetime:
        return min(now + timedelta(seconds=seconds), self.give_up_at)


def _pause_seconds(tries: int) -> float:
    return _spread(PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)])


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
