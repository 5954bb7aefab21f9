"""One attempt: what was submitted to a provider, what became of it and what it cost. The attempts of a job are its ledger."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from .report import Charged, Code, Cost, Failed, Running, Succeeded
from .values import replace

#: the longest back-off between two attempts, whatever the provider asks
MAX_BACKOFF_SECONDS = 60.0


class Outcome(StrEnum):
    """What became of an attempt."""

    SENDING = "sending"  #: on its way; nobody has seen its end
    ACCEPTED = "accepted"  #: the provider renders it
    SUCCEEDED = "succeeded"  #: the provider reported its images
    SURPLUS = "surplus"  #: it succeeded beside another attempt whose images are kept
    REJECTED = "rejected"  #: the provider refused or failed it
    NOT_SENT = "not_sent"  #: surely nothing reached the provider
    UNKNOWN = "unknown"  #: sent, and nobody saw the end


class Recovery(StrEnum):
    """How an attempt whose end nobody saw can be settled; what the provider can do decides it."""

    KEY = "key"  #: send it again under the same key: it is not charged twice
    CALLBACK = "callback"  #: wait: its callback can still come
    LOOKUP = "lookup"  #: ask for it by our own key
    NONE = "none"  #: nothing can be known


@dataclass(frozen=True)
class Attempt:
    """One submission, numbered from 1."""

    number: int
    operation: str
    started_at: datetime
    #: the worker process that sent it
    holder: str
    outcome: Outcome = Outcome.SENDING
    recovery: Recovery = Recovery.NONE
    #: whether the vendor can be asked while it runs
    polled: bool = False
    #: whether its answer can hold the images themselves
    inline: bool = False
    #: the vendor's name for it
    external_id: str | None = None
    charged: Charged = Charged.UNKNOWN
    expected_cost: Cost | None = None
    cost: Cost | None = None
    ended_at: datetime | None = None
    #: how often it was sent; more than once only under the provider's own key
    sends: int = 1
    code: Code | None = None
    message: str | None = None

    @property
    def provider(self) -> str:
        return self.operation.partition(".")[0]

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come."""
        return self.outcome in (Outcome.SENDING, Outcome.ACCEPTED, Outcome.UNKNOWN)

    @property
    def can_poll(self) -> bool:
        """Whether the vendor can be asked after it, by its own id or by our key."""
        return self.recovery is Recovery.LOOKUP or (self.polled and self.external_id is not None)

    @property
    def is_resent(self) -> bool:
        """Whether it was sent more than once, so that a refusal may be the answer to one send only."""
        return self.sends > 1

    def next_poll_at(self, now: datetime) -> datetime | None:
        """When to ask the vendor next; None: it cannot be asked."""
        if not self.can_poll:
            return None
        return now + timedelta(seconds=poll_seconds((now - self.started_at).total_seconds()))

    def repeating(self, earlier: Attempt) -> Attempt:
        """The attempt, sent under the key under which it was sent earlier."""
        return replace(self, started_at=earlier.started_at, sends=earlier.sends + 1)

    def accepted(self, report: Running) -> Attempt:
        """The provider renders it."""
        return replace(self, outcome=Outcome.ACCEPTED, external_id=report.external_id or self.external_id)

    def succeeded(self, report: Succeeded, now: datetime) -> Attempt:
        """The provider reported its images, and charged it."""
        return replace(
            self,
            outcome=Outcome.SUCCEEDED,
            external_id=report.external_id or self.external_id,
            charged=Charged.YES,
            cost=report.cost or self.expected_cost,
            ended_at=now,
            code=None,
            message=None,
        )

    def failed(self, report: Failed, now: datetime) -> Attempt:
        """The provider refused or failed it, or could not be reached."""
        return replace(
            self,
            outcome=Outcome.NOT_SENT if report.not_sent and not self.is_resent else Outcome.REJECTED,
            external_id=report.external_id or self.external_id,
            charged=Charged.UNKNOWN if self.is_resent and report.charged is Charged.NO else report.charged,
            ended_at=now,
            code=report.code,
            message=report.message,
        )

    def unknown(self) -> Attempt:
        """It was sent, and nobody saw its end."""
        return replace(self, outcome=Outcome.UNKNOWN)

    def left(self) -> Attempt:
        """The job goes on without news of it: if it is on its way still, nobody sees its end."""
        return self.unknown() if self.outcome is Outcome.SENDING else self

    def unrepeatable(self) -> Attempt:
        """The job shall be submitted anew: this attempt is not sent again under its key."""
        return replace(self, recovery=Recovery.NONE) if self.is_open else self


def backoff_seconds(attempt: int, asked: float | None = None) -> float:
    """How long to wait after the failure of attempt `attempt`: 1, 2, 4 s with jitter; what the provider asks; at most 60 s."""
    planned = float(2 ** (attempt - 1)) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
    return min(max(planned, asked or 0.0), MAX_BACKOFF_SECONDS)


def poll_seconds(running_seconds: float) -> float:
    """How long until the next poll of an attempt that runs for so long: a quarter of that, from 1 to 15 s."""
    return min(max(running_seconds / 4, 1.0), 15.0)
