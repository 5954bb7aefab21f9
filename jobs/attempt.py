"""An attempt: one submission to a provider, its outcome and its cost. The attempts of a job are its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from .report import Charged, Code, Cost, Failed, Running, Succeeded
from .values import replace, shown, spread

#: the longest pause before a retry, in seconds, unless the provider asks for a longer one
MAX_BACKOFF_SECONDS = 60.0
#: the longest pause between two polls, in seconds
MAX_POLL_SECONDS = 15.0


class Outcome(StrEnum):
    """The outcome of an attempt, as far as it is known."""

    SENDING = "sending"  #: a worker is sending it
    ACCEPTED = "accepted"  #: the provider is rendering it
    SUCCEEDED = "succeeded"  #: the provider reported its images
    SURPLUS = "surplus"  #: it succeeded, but the images of another attempt are stored
    REJECTED = "rejected"  #: the provider refused it, or failed to render it
    NOT_SENT = "not_sent"  #: nothing reached the provider
    UNKNOWN = "unknown"  #: it was sent, and no answer came


class Recovery(StrEnum):
    """How the unknown outcome of an attempt can be found out; the provider's abilities decide."""

    KEY = "key"  #: send it again with the same idempotency key: it is not charged twice
    CALLBACK = "callback"  #: wait for its callback
    LOOKUP = "lookup"  #: ask for it by our own key
    NONE = "none"  #: it cannot be found out


#: the names of an attempt that are not for users: what only the transitions of its job ask, and its own
_INTERNAL = (
    *("holder", "recovery", "polled", "inline", "next_poll_at", "repeating", "accepted", "succeeded", "failed"),
    *("refused", "unknown", "left", "unrepeatable", "after", "part"),
)


@dataclass(frozen=True)
class Attempt:
    """One line of the ledger: one submission, or a run of submissions that the provider refused for now."""

    #: from 1; of a run, the last number
    number: int
    #: the provider and its service, for example `deepmode.generate`
    operation: str
    #: when it was sent first
    started_at: datetime
    #: internal: the id of the worker process that sent it
    holder: str
    #: what became of it, as far as it is known
    outcome: Outcome = Outcome.SENDING
    #: internal: how an unknown outcome can be found out
    recovery: Recovery = Recovery.NONE
    #: internal: whether the provider can be asked about it while it runs
    polled: bool = False
    #: internal: whether its answer can hold the images themselves
    inline: bool = False
    #: the provider's name for it
    external_id: str | None = None
    #: whether it was charged
    charged: Charged = Charged.UNKNOWN
    #: what it is expected to cost
    expected_cost: Cost | None = None
    #: what it did cost, as far as the provider says
    cost: Cost | None = None
    #: when its outcome became known
    ended_at: datetime | None = None
    #: how many times it was sent: with the provider's idempotency key, or in a run, each time under its own number
    times: int = 1
    #: how many of these times the provider refused it for now: nothing was done, and nothing charged
    refusals: int = 0
    #: of a run, the first number
    first_number: int | None = None
    #: why it failed, or was refused last
    code: Code | None = None
    #: what the provider said about that, without secrets
    message: str | None = None

    @property
    def provider(self) -> str:
        """The provider's name, for example `deepmode`."""
        return self.operation.partition(".")[0]

    @property
    def is_open(self) -> bool:
        """Whether its outcome may still become known."""
        return self.outcome in (Outcome.SENDING, Outcome.ACCEPTED, Outcome.UNKNOWN)

    @property
    def can_poll(self) -> bool:
        """Whether the provider can be asked about it, by its own id or by our key."""
        return self.recovery is Recovery.LOOKUP or (self.polled and self.external_id is not None)

    @property
    def is_refused(self) -> bool:
        """Whether the provider refused it for now, each time: it does not count as an attempt."""
        return self.refusals == self.times

    @property
    def counted_times(self) -> int:
        """How many times it was sent and not refused for now."""
        return self.times - self.refusals

    @property
    def is_repeat(self) -> bool:
        """Whether an earlier send with the same key has an unknown outcome, so that a refusal is not the last word."""
        return self.counted_times > 1

    def __dir__(self) -> list[str]:
        """Names what a user needs."""
        return shown(self, _INTERNAL)

    def next_poll_at(self, now: datetime) -> datetime | None:
        """When to ask the provider next; None: it cannot be asked."""
        if not self.can_poll:
            return None
        return now + timedelta(seconds=poll_seconds((now - self.started_at).total_seconds()))

    def repeating(self, earlier: Attempt) -> Attempt:
        """The attempt, sent with the key with which it was sent earlier."""
        return replace(
            self,
            started_at=earlier.started_at,
            times=earlier.times + 1,
            refusals=earlier.refusals,
            code=earlier.code,
            message=earlier.message,
        )

    def accepted(self, report: Running) -> Attempt:
        """The attempt, which the provider is rendering."""
        return replace(
            self,
            outcome=Outcome.ACCEPTED,
            external_id=report.external_id or self.external_id,
            charged=Charged.UNKNOWN,
            ended_at=None,
            refusals=min(self.refusals, self.times - 1),
            code=None,
            message=None,
        )

    def succeeded(self, report: Succeeded, now: datetime) -> Attempt:
        """The attempt, whose images the provider reported and charged."""
        return replace(
            self,
            outcome=Outcome.SUCCEEDED,
            external_id=report.external_id or self.external_id,
            charged=Charged.YES,
            cost=report.cost or self.expected_cost,
            ended_at=now,
            refusals=min(self.refusals, self.times - 1),
            code=None,
            message=None,
        )

    def failed(self, report: Failed, now: datetime) -> Attempt:
        """The attempt, which the provider refused, failed to render, or was not reached for."""
        return replace(
            self,
            outcome=Outcome.NOT_SENT if report.not_sent and not self.is_repeat else Outcome.REJECTED,
            external_id=report.external_id or self.external_id,
            charged=Charged.UNKNOWN if self.is_repeat and report.charged is Charged.NO else report.charged,
            ended_at=now,
            refusals=min(self.refusals, self.times - 1),
            code=report.code,
            message=report.message,
        )

    def refused(self, report: Failed, now: datetime) -> Attempt:
        """The attempt, which the provider refused for now; in doubt if an earlier send with its key is."""
        refused = replace(self.failed(report, now), refusals=self.refusals + 1)
        return refused.unknown() if self.is_repeat else refused

    def unknown(self) -> Attempt:
        """The attempt, which was sent without an answer."""
        return replace(self, outcome=Outcome.UNKNOWN, charged=Charged.UNKNOWN, ended_at=None)

    def left(self) -> Attempt:
        """The attempt after its job goes on without it: if it is still being sent, its outcome is unknown."""
        return self.unknown() if self.outcome is Outcome.SENDING else self

    def unrepeatable(self) -> Attempt:
        """The attempt, which is not sent again with its key."""
        return replace(self, recovery=Recovery.NONE) if self.is_open or self.is_refused else self

    # --- runs -----------------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> range:
        """The numbers of the attempts on this line."""
        return range(self.first_number or self.number, self.number + 1)

    def after(self, earlier: Attempt) -> Attempt:
        """The run of an earlier refused attempt or run, and this refused one."""
        return replace(
            self,
            first_number=earlier.numbers[0],
            started_at=earlier.started_at,
            times=earlier.times + self.times,
            refusals=earlier.refusals + self.refusals,
        )

    def part(self, numbers: range) -> Attempt:
        """The part of a run that has these numbers."""
        times, first = len(numbers), numbers[0] if len(numbers) > 1 else None
        return replace(self, number=numbers[-1], first_number=first, times=times, refusals=times)


def find_attempt(ledger: Sequence[Attempt], number: int) -> Attempt | None:
    """The line of a ledger that has this number."""
    return next((attempt for attempt in reversed(ledger) if number in attempt.numbers), None)


def backoff_seconds(failures: int, key: str) -> float:
    """How long to wait before a retry, in seconds: after 1, 2, 3 failures about 1, 2, 4 s, at most 60 s.

    `key` spreads the retries of different jobs.
    """
    doublings = min(max(failures, 1), 10) - 1
    return min(spread(2.0**doublings, key, failures), MAX_BACKOFF_SECONDS)


def poll_seconds(running_seconds: float) -> float:
    """How long until the next poll, in seconds, of an attempt that has been running for so long: a quarter, 1 to 15 s."""
    return min(max(running_seconds / 4, 1.0), MAX_POLL_SECONDS)
