"""A delivery: one webhook of a job and its tries. Frozen values; when to try again is a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .values import replace, shown, spread

#: the pause after each failed try, in seconds; then the last one again, until the delivery is given up
PAUSES_SECONDS = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0)
#: how long a delivery is tried
GIVE_UP_AFTER = timedelta(hours=24)
#: two processes' estimates of Redis' time differ by less: a delivery that is due for one of them is due for the other
CLOCK_TOLERANCE = timedelta(milliseconds=100)
#: how many tries the log holds, the latest ones
LOG_LENGTH = 12
#: the shortest and the longest pause of a postponed delivery, in seconds; between them it is a quarter of its age
POSTPONED_SECONDS = (5.0, 3600.0)


@dataclass(frozen=True)
class Try:
    """One try of a delivery."""

    at: datetime
    #: the HTTP status that the endpoint answered; None without an answer
    status: int | None = None
    #: why there was no answer
    problem: str | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the endpoint accepted the webhook, with a 2xx."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Delivery:
    """One webhook about one event, delivered at least once."""

    #: the same for each try, so that the endpoint can recognize a repeated webhook
    id: str
    #: the status that the job came to
    event: str
    #: when the event happened
    created_at: datetime
    #: when it is tried next; None: it was delivered or given up
    next_at: datetime | None
    #: when the endpoint accepted it
    delivered_at: datetime | None = None
    #: how many times it was tried, since it was created or restarted
    tries: int = 0
    #: when it was restarted by a person; None: never
    since: datetime | None = None
    #: the latest tries, oldest first
    log: tuple[Try, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it will be tried again."""
        return self.next_at is not None

    def __dir__(self) -> list[str]:
        """Names what a user needs."""
        return shown(self, ("is_due", "tried", "postponed", "restarted"))

    def is_due(self, now: datetime) -> bool:
        """Whether it should be tried now."""
        return self.next_at is not None and self.next_at <= now + CLOCK_TOLERANCE

    @property
    def give_up_at(self) -> datetime:
        """When it is tried for the last time."""
        return (self.since or self.created_at) + GIVE_UP_AFTER

    def tried(self, attempt: Try) -> Delivery:
        """The delivery after one more try: delivered, given up, or due again later."""
        changed = replace(self, tries=self.tries + 1, log=(*self.log, attempt)[-LOG_LENGTH:])
        if attempt.is_accepted:
            return replace(changed, next_at=None, delivered_at=attempt.at)
        # 410 Gone says that the endpoint wants no more webhooks.
        if attempt.status == 410 or attempt.at >= self.give_up_at:
            return replace(changed, next_at=None)
        pause_seconds = PAUSES_SECONDS[min(self.tries, len(PAUSES_SECONDS) - 1)]
        return replace(changed, next_at=self._later(attempt.at, pause_seconds))

    def postponed(self, now: datetime) -> Delivery:
        """The delivery, which could not be tried because its host has too many others in progress.

        The older it is, the longer it waits, so that many deliveries to a dead host do not keep the sweep busy.
        """
        if now >= self.give_up_at:
            return self.tried(Try(now, problem="too many other webhooks were being sent to its host"))
        shortest, longest = POSTPONED_SECONDS
        age_seconds = (now - (self.since or self.created_at)).total_seconds()
        return replace(self, next_at=self._later(now, min(max(age_seconds / 4, shortest), longest)))

    def restarted(self, now: datetime) -> Delivery:
        """The delivery, to be tried again from the start because a person asked for it."""
        return replace(self, next_at=now, since=now, delivered_at=None, tries=0)

    def _later(self, now: datetime, pause_seconds: float) -> datetime:
        pause = timedelta(seconds=spread(pause_seconds, self.id, now.timestamp()))
        return min(now + pause, self.give_up_at)
