"""A job: frozen values. `jobs.transitions` changes them, `jobs.schedule` says when a job needs attention.

queued ─> submitting ─> running ─> storing ─> succeeded
   ▲          │   └────────┼─────────▲ └────> failed
   └─ retry ──┴────────────┤         └── a late result of a failed job
                           └─────> failed          queued, submitting, running ─> canceled
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .attempt import Attempt, Outcome
from .delivery import Delivery
from .images import Artifact, Missing, PendingImage
from .report import Code, Unit
from .values import shown

if TYPE_CHECKING:
    from .request import JsonValue
else:
    # What was JSON in the record needs no check when the record is read.
    JsonValue = Any

__all__ = ["ATTEMPTS", "FINAL", "WAITING", "Artifact", "Attempt", "Event", "Failure", "Job", "OnUnknown", "Status"]

#: how many attempts a job has, until a person retries it
ATTEMPTS = 4


#: the fields of a job that are not for users
_INTERNAL = ("wake_at", "holder", "attempts_allowed", "pending", "given_up", "version", "has_later_fields")


class Status(StrEnum):
    """The status of a job."""

    QUEUED = "queued"  #: waits for a worker, or for the time of its next attempt
    SUBMITTING = "submitting"  #: a worker is sending an attempt; from here on it may cost money
    RUNNING = "running"  #: the provider is rendering; no worker holds the job
    STORING = "storing"  #: a worker is storing the images
    SUCCEEDED = "succeeded"  #: final: at least one image is stored
    FAILED = "failed"  #: final: `error` says why
    CANCELED = "canceled"  #: final: it was canceled before it ended

    @property
    def is_final(self) -> bool:
        """Whether the job is over; only a late result or a retry by a person changes it again."""
        return self in FINAL


#: the statuses after which nothing more is expected
FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)
#: the statuses in which a job waits for its provider
WAITING = frozenset({Status.QUEUED, Status.SUBMITTING, Status.RUNNING})


class OnUnknown(StrEnum):
    """What a job does about an attempt whose outcome is unknown and cannot be found out."""

    FAIL = "fail"  #: fail with `outcome_unknown`; nothing is sent again
    CHARGE_AGAIN = "charge_again"  #: send another attempt, which may be charged a second time


@dataclass(frozen=True)
class Failure:
    """Why a job failed."""

    #: the kind of failure
    code: Code
    #: one sentence for a person, without secrets
    message: str


@dataclass(frozen=True)
class Event:
    """One entry of a job's timeline."""

    #: when it happened first
    at: datetime
    #: what happened, in a few words
    what: str
    #: how many times in a row it happened
    times: int = 1


@dataclass(frozen=True, repr=False)
class Job:
    """One request for images, from enqueue to final status."""

    #: 32 hexadecimal digits
    id: str
    #: the provider and its service, for example `deepmode.generate`
    operation: str
    #: the fields of the request as JSON; images are URLs, or references to staged inputs
    params: Mapping[str, JsonValue]
    #: where the job is on its way
    status: Status
    #: when it was enqueued
    created_at: datetime
    #: when the job last changed; claims by workers and deliveries of webhooks do not count
    updated_at: datetime
    #: when the waiting for the provider ends
    deadline_at: datetime
    #: how long the job waits for the provider, from the enqueue or a retry by a person
    deadline_seconds: float
    #: how many images the request asks for
    images_expected: int
    #: internal: when a worker should act next unless one holds the job, besides the deadline; None: not before the deadline
    wake_at: datetime | None = None
    #: internal: the id of the worker process that holds the job under a lease
    holder: str | None = None
    #: the ledger: what was sent to the provider, and what it cost
    attempts: tuple[Attempt, ...] = ()
    #: internal: the number of attempts after which the job fails
    attempts_allowed: int = ATTEMPTS
    #: internal: the images that the provider offered and that are not stored yet
    pending: tuple[PendingImage, ...] = ()
    #: the stored images, in the provider's order
    artifacts: tuple[Artifact, ...] = ()
    #: the images that were asked for and could not be stored, with the reasons
    missing: tuple[Missing, ...] = ()
    #: why the job failed; None in every other status
    error: Failure | None = None
    #: internal: why the job had failed before a late result came
    given_up: Failure | None = None
    #: when the job reached its final status
    finished_at: datetime | None = None
    #: what the caller attached at the enqueue
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    #: the name of the API key that enqueued it; empty for the Python API
    owner: str = ""
    #: what to do about an attempt whose outcome is unknown
    on_unknown: OnUnknown = OnUnknown.FAIL
    #: whether images that arrive after a cancel are stored
    keep_late: bool = False
    #: the latest entries, oldest first
    timeline: tuple[Event, ...] = ()
    #: the endpoint of the job's webhooks; a secret
    webhook_url: str | None = None
    #: the statuses for which a webhook is sent
    webhook_events: tuple[Status, ...] = FINAL
    #: the webhooks and their tries
    deliveries: tuple[Delivery, ...] = ()
    #: internal: the version of the record, changed by every write
    version: str = field(default="", compare=False)
    #: internal: whether its record holds fields that only a later version of Darkroom knows; a write keeps them
    has_later_fields: bool = field(default=False, compare=False)

    @property
    def provider(self) -> str:
        """The provider's name, for example `deepmode`."""
        return self.operation.partition(".")[0]

    @property
    def attempt(self) -> Attempt | None:
        """The current attempt, the last one on the ledger."""
        return self.attempts[-1] if self.attempts else None

    @property
    def has_unknown(self) -> bool:
        """Whether the ledger holds an attempt with an unknown outcome, which may have been charged."""
        return any(attempt.outcome is Outcome.UNKNOWN for attempt in self.attempts)

    def __dir__(self) -> list[str]:
        """Names what a user needs."""
        return shown(self, _INTERNAL)

    def __repr__(self) -> str:
        """One line without secrets: `<Job 0f3c… deepmode.generate succeeded, 3 of 3 images, 1 credit>`."""
        status = f"{self.status} ({self.error.code})" if self.error else self.status
        images = f"{len(self.artifacts)} of {self.images_expected} images"
        return f"<Job {self.id} {self.operation} {status}, {images}, {self._cost()}>"

    def _cost(self) -> str:
        totals: dict[Unit, float] = {}
        for cost in (attempt.cost for attempt in self.attempts if attempt.cost):
            totals[cost.unit] = totals.get(cost.unit, 0.0) + cost.amount
        known = " + ".join(f"{amount:g} {unit}" for unit, amount in totals.items())
        return known or ("cost unknown" if self.attempts else "nothing sent")
