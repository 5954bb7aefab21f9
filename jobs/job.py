"""What a job is and how it moves: frozen values and pure transitions, the only code that changes a status.

Each transition is a method that takes the news and the time and returns the job as it is then. News that is stale, late,
repeated or another holder's returns the very same object, or the same job with a line more on its timeline.

    queued ─> submitting ─> running ─> storing ─> succeeded
       ▲          │   └────────┼─────────▲ └────> failed
       └─ retry ──┴────────────┤         └── a late result of a job given up
                               └─────> failed          queued, submitting, running ─> canceled
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from .attempt import MAX_BACKOFF_SECONDS, Attempt, Outcome, Recovery, backoff_seconds, poll_seconds
from .delivery import Delivery, Try
from .errors import ChargePossible, NotPossible
from .images import Artifact, Inline, Kept, Missing, PendingImage, Postponed, Spooled, awaited
from .report import Charged, Code, Cost, Failed, Report, Running, Succeeded
from .values import replace

__all__ = [
    "ATTEMPTS",
    "FINAL",
    "INPUT_PAUSE_SECONDS",
    "MAX_BACKOFF_SECONDS",
    "TIMELINE_LENGTH",
    "Artifact",
    "Attempt",
    "Event",
    "Failure",
    "Inline",
    "Job",
    "Kept",
    "Missing",
    "OnUnknown",
    "Outcome",
    "PendingImage",
    "Postponed",
    "Recovery",
    "Spooled",
    "Status",
    "backoff_seconds",
    "poll_seconds",
]

#: attempts of a job, unless a person asks for more
ATTEMPTS = 4
#: how long until a job whose input images could not be had is tried again
INPUT_PAUSE_SECONDS = 5.0
#: the timeline keeps this many of the latest events
TIMELINE_LENGTH = 50


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  #: waits for a worker, or for the time of its next attempt
    SUBMITTING = "submitting"  #: a worker is sending an attempt; from here on it may cost money
    RUNNING = "running"  #: the provider renders; nobody holds anything
    STORING = "storing"  #: a worker fetches and keeps the images
    SUCCEEDED = "succeeded"  #: final: at least one image is stored
    FAILED = "failed"  #: final: `error` says why
    CANCELED = "canceled"  #: final: somebody asked for it

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)
_WAITING = frozenset({Status.QUEUED, Status.SUBMITTING, Status.RUNNING})


class OnUnknown(StrEnum):
    """What a job wants done with an attempt whose end nobody saw and nobody can learn."""

    FAIL = "fail"
    CHARGE_AGAIN = "charge_again"


@dataclass(frozen=True)
class Failure:
    """Why a job failed."""

    code: Code
    message: str


@dataclass(frozen=True)
class Event:
    """One line of a job's timeline."""

    at: datetime
    what: str
    #: how often it came in a row
    times: int = 1


@dataclass(frozen=True)
class Job:
    """One request for images, from enqueue to final status."""

    id: str
    operation: str
    #: the request's fields as JSON; images are URLs or references into our storage
    params: Mapping[str, Any] = field(repr=False)
    status: Status
    created_at: datetime
    updated_at: datetime
    #: the end of waiting for a provider
    deadline_at: datetime
    deadline_seconds: float
    images_expected: int
    #: when a worker should act next, besides the deadline; None: not before the deadline
    wake_at: datetime | None
    #: the process that acts on it now
    holder: str | None = None
    attempts: tuple[Attempt, ...] = ()
    attempts_allowed: int = ATTEMPTS
    pending: tuple[PendingImage, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    missing: tuple[Missing, ...] = ()
    error: Failure | None = None
    #: why it had been given up before a late result came
    given_up: Failure | None = None
    finished_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: the name of the API key that enqueued it; empty for the Python API
    owner: str = ""
    on_unknown: OnUnknown = OnUnknown.FAIL
    keep_late: bool = False
    timeline: tuple[Event, ...] = ()
    #: where the job tells of itself; a secret
    webhook_url: str | None = field(default=None, repr=False)
    #: the statuses of which it tells
    webhook_events: tuple[Status, ...] = FINAL
    deliveries: tuple[Delivery, ...] = ()
    #: the record's version, changed by every write; the repository's business
    version: str = field(default="", compare=False, repr=False)

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def provider(self) -> str:
        return self.operation.partition(".")[0]

    @property
    def attempt(self) -> Attempt | None:
        """The current attempt, the last one on the ledger."""
        return self.attempts[-1] if self.attempts else None

    @property
    def unknown(self) -> bool:
        """Whether the ledger holds an attempt whose end nobody saw."""
        return any(attempt.outcome is Outcome.UNKNOWN for attempt in self.attempts)

    @property
    def resends(self) -> bool:
        """Whether the next submission is the same attempt again, under the provider's own key."""
        last = self.attempt
        return last is not None and last.outcome is Outcome.UNKNOWN and last.recovery is Recovery.KEY

    @property
    def next_number(self) -> int:
        """The number of the next attempt to be sent."""
        return len(self.attempts) + (0 if self.resends else 1)

    @property
    def due_at(self) -> datetime | None:
        """When the sweep must look at it; None: never. A queued job's wake-up stands in its provider's line instead."""
        times = [self.deadline_at] if self.status in _WAITING else []
        if self.wake_at is not None and self.status is not Status.QUEUED:
            times.append(self.wake_at)
        times += [delivery.next_at for delivery in self.deliveries if delivery.next_at is not None]
        return min(times, default=None)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done: final, its images kept, its deliveries ended. Its retention begins."""
        return self.status.final and not self.pending and not any(item.open for item in self.deliveries)

    @property
    def lane_at(self) -> datetime | None:
        """When it may be taken from its provider's line; None: it does not stand there."""
        return self.wake_at if self.status is Status.QUEUED and self.holder is None else None

    def attempt_key(self, number: int) -> str:
        """Our name for an attempt, the same whenever it is sent again."""
        return f"{self.id}-{number}"

    def polls(self, now: datetime) -> bool:
        """Whether it is time to ask the vendor after the current attempt."""
        asks = self.attempt is not None and self.attempt.askable and self.attempt.open
        return asks and self.status is Status.RUNNING and self.wake_at is not None and self.wake_at <= now

    def overdue(self, now: datetime) -> bool:
        return self.status in _WAITING and now >= self.deadline_at

    # --- queued: a worker takes it --------------------------------------------------------------------------------

    def claimed(self, holder: str, now: datetime) -> Job:
        """A worker takes a queued or a storing job into its hands; nothing was paid by that."""
        if self.overdue(now):
            return self.expired(now)
        ready = self.holder is None and self.wake_at is not None and self.wake_at <= now
        if not ready or not (self.status is Status.QUEUED or self.pending):
            return self
        return replace(self, holder=holder, wake_at=None if self.pending else self.wake_at, updated_at=now)

    def released(self, holder: str, now: datetime) -> Job:
        """The holder puts it back untouched, or died: it is free again, now."""
        if self.holder != holder or self.status is Status.SUBMITTING:
            return self
        free = replace(self, holder=None, wake_at=now, updated_at=now)
        return free._settled(now) if self.pending else free

    def unprepared(self, holder: str, message: str, now: datetime, *, lasting: bool) -> Job:
        """The holder could not have the input images: nothing was sent. Tried again until the deadline, unless it lasts."""
        if self.status is not Status.QUEUED or self.holder != holder:
            return self
        if lasting:
            return self._gave_up(Failure(Code.INVALID_REQUEST, message), now)
        again = now + timedelta(seconds=INPUT_PAUSE_SECONDS)
        return replace(self, holder=None, wake_at=again, updated_at=now).noted(f"inputs: {message}", now)

    def sending(
        self,
        holder: str,
        now: datetime,
        *,
        recovery: Recovery = Recovery.NONE,
        polled: bool = False,
        inline: bool = False,
        expected_cost: Cost | None = None,
    ) -> Job:
        """The holder writes the attempt on the ledger; the bytes go out right after. Anybody else gets the job unchanged."""
        if self.overdue(now):
            return self.expired(now)
        if self.status is not Status.QUEUED or self.holder != holder:
            return self
        attempt = Attempt(
            self.next_number, self.operation, now, holder, recovery=recovery, polled=polled, inline=inline
        )
        attempt = replace(attempt, expected_cost=expected_cost)
        if self.resends:
            attempt = attempt.repeating(self.attempts[-1])
        attempts = (*self.attempts[: attempt.number - 1], attempt)
        return self._moved(Status.SUBMITTING, now, f"submitting {attempt.number}", attempts=attempts, holder=holder)

    # --- submitting, running: the provider reports ----------------------------------------------------------------

    def reported(
        self, number: int, report: Report, now: datetime, *, inline: Mapping[int, Inline] | None = None
    ) -> Job:
        """A provider says something of attempt `number`: by its answer, a callback or a poll, whichever comes first.

        `inline` tells what became of images that came inside the answer, by index.
        """
        if not 1 <= number <= len(self.attempts):
            return self
        match report:
            case Running():
                return self._accepted(number, report, now)
            case Succeeded():
                return self._succeeded(number, report, now, inline or {})
            case Failed():
                return self._failed(number, report, now)

    def _awaits(self, number: int) -> bool:
        """Whether news of this attempt decides what the job does next.

        So it does too while the attempt waits to be sent again under its key: sent under another, it would be paid twice.
        """
        if number != len(self.attempts):
            return False
        return self.status in (Status.SUBMITTING, Status.RUNNING) or (self.status is Status.QUEUED and self.resends)

    def _accepted(self, number: int, report: Running, now: datetime) -> Job:
        attempt = self.attempts[number - 1]
        if not attempt.open:
            return self
        known = attempt.accepted(report)
        if not self._awaits(number):
            return self if known == attempt else self._with(known).noted(f"{number} accepted too late", now)
        if self.status is not Status.RUNNING:
            job = self._with(known)._moved(Status.RUNNING, now, f"running {number}")
            return replace(job, wake_at=known.next_poll_at(now))
        if known == attempt and (self.wake_at is None or self.wake_at > now):
            return self
        return replace(self._with(known), wake_at=known.next_poll_at(now), updated_at=now)

    def asked(self, now: datetime) -> Job:
        """A poll taught nothing: ask again later."""
        if not self.polls(now) or self.attempt is None:
            return self
        return replace(self, wake_at=self.attempt.next_poll_at(now), updated_at=now)

    def _succeeded(self, number: int, report: Succeeded, now: datetime, inline: Mapping[int, Inline]) -> Job:
        attempt = self.attempts[number - 1]
        if attempt.outcome in (Outcome.SUCCEEDED, Outcome.SURPLUS):
            return self._repeated(number, report, now)
        paid = attempt.succeeded(report, now)
        if self.status in _WAITING or self._salvageable(attempt):
            return self._with(paid)._stores(number, report, now, inline)
        if self.status is Status.CANCELED:
            return self._canceled_too_late(paid, report, now, inline)
        surplus = Outcome.SURPLUS if self.status in (Status.STORING, Status.SUCCEEDED) else Outcome.SUCCEEDED
        return self._with(replace(paid, outcome=surplus)).noted(f"{number} succeeded too late", now)

    def _stores(self, number: int, report: Succeeded, now: datetime, inline: Mapping[int, Inline]) -> Job:
        images = [awaited(image, number, inline.get(image.index), now) for image in report.images]
        missing = (image for image in images if isinstance(image, Missing))
        job = self._moved(
            Status.STORING,
            now,
            f"storing {number}",
            wake_at=now,
            pending=tuple(image for image in images if isinstance(image, PendingImage)),
            artifacts=tuple(image for image in images if isinstance(image, Artifact)),
            missing=(*self._shortfall(report), *missing),
            given_up=self.error,
            error=None,
            finished_at=None,
        )
        return job._settled(now)

    def _shortfall(self, report: Succeeded) -> tuple[Missing, ...]:
        offered = {image.index for image in report.images}
        said = f"the provider gave {len(offered)} of {self.images_expected} images"
        return tuple(
            Missing(index, Code.PROVIDER_ERROR, said) for index in range(self.images_expected) if index not in offered
        )

    def _failed(self, number: int, report: Failed, now: datetime) -> Job:
        attempt = self.attempts[number - 1]
        if not attempt.open:
            return self.noted(f"{number} {report.code} too late", now)
        ended = attempt.failed(report, now)
        if not self._awaits(number):
            return self._with(ended).noted(f"{number} {report.code} too late", now)
        if attempt.resent and report.retryable and attempt.sends < self.attempts_allowed:
            wait_seconds = backoff_seconds(attempt.sends, report.retry_after_seconds)
            return self._with(attempt.unseen())._requeued(f"{number} {report.code}: same key", now, wait_seconds)
        if not self._may_retry(report, ended.charged):
            return self._with(ended)._gave_up(Failure(report.code, report.message), now)
        wait_seconds = backoff_seconds(number, report.retry_after_seconds)
        return self._with(ended)._requeued(f"{number} {report.code}: retry", now, wait_seconds)

    def _may_retry(self, report: Failed, charged: Charged) -> bool:
        free = charged is Charged.NO or self.on_unknown is OnUnknown.CHARGE_AGAIN
        return report.retryable and free and self._attempts_left

    @property
    def _attempts_left(self) -> bool:
        return len(self.attempts) < self.attempts_allowed

    # --- submitting: nobody saw the end ---------------------------------------------------------------------------

    def unseen(self, holder: str, now: datetime, *, number: int | None = None) -> Job:
        """The end of the current attempt was not seen: its holder died, or the connection broke after bytes went out.

        `number` is the attempt whose connection broke; the same holder may be sending another one by then.
        """
        if self.holder != holder or number not in (None, len(self.attempts)):
            return self
        if self.status is not Status.SUBMITTING:
            return self.released(holder, now)
        attempt = self.attempts[-1].unseen()
        job = self._with(attempt)
        match attempt.recovery:
            case Recovery.KEY if attempt.sends < self.attempts_allowed:
                return job._requeued(f"end of {attempt.number} not seen: same key", now, backoff_seconds(attempt.sends))
            case Recovery.CALLBACK:
                return job._moved(Status.RUNNING, now, f"end of {attempt.number} not seen: waiting for its callback")
            case Recovery.LOOKUP:
                return job._moved(Status.RUNNING, now, f"end of {attempt.number} not seen: asking", wake_at=now)
        return job._unknown_for_good(attempt, now)

    def _unknown_for_good(self, attempt: Attempt, now: datetime) -> Job:
        if self.on_unknown is OnUnknown.CHARGE_AGAIN and self._attempts_left:
            job = self._with(attempt.unrepeatable())
            return job._requeued(
                f"end of {attempt.number} not seen: resubmitting", now, backoff_seconds(attempt.number)
            )
        said = f"attempt {attempt.number} was sent and nobody saw its end; it may have been charged"
        return self._gave_up(Failure(Code.OUTCOME_UNKNOWN, said), now)

    # --- queued, submitting, running: the waiting ends ------------------------------------------------------------

    def expired(self, now: datetime) -> Job:
        """The deadline ends the waiting for a provider; never the storing."""
        if not self.overdue(now):
            return self
        said = f"no result within {self.deadline_seconds:g} s of the enqueue"
        return self._gave_up(Failure(Code.DEADLINE, said), now)

    def canceled(self, now: datetime) -> Job:
        """Somebody asks to stop. What was sent may still be charged, and the ledger says so."""
        if self.status not in _WAITING:
            return self
        return self._moved(Status.CANCELED, now, "canceled", finished_at=now)

    # --- storing: images are kept ---------------------------------------------------------------------------------

    def kept(self, number: int, ended: Mapping[int, Kept], now: datetime) -> Job:
        """The images of attempt `number` that were stored, given up or postponed, by index."""
        waiting = {image.index: image for image in self.pending if image.attempt == number}
        news = [(waiting[index], end) for index, end in ended.items() if index in waiting]
        if not news:
            return self
        stored = tuple(end for _, end in news if isinstance(end, Artifact))
        given_up = tuple(replace(end, image=image) for image, end in news if isinstance(end, Missing))
        again = {image.index: image.postponed(end, now) for image, end in news if isinstance(end, Postponed)}
        done = {image.index for image, end in news if not isinstance(end, Postponed)}
        job = replace(
            self,
            artifacts=tuple(sorted((*self.artifacts, *stored), key=lambda artifact: artifact.index)),
            missing=tuple(sorted((*self.missing, *given_up), key=lambda missing: missing.index)),
            pending=tuple(again.get(image.index, image) for image in self.pending if image.index not in done),
            holder=None,
            updated_at=now,
        )
        return job._settled(now)

    def _settled(self, now: datetime) -> Job:
        """Final once each image has its end; until then due when the first of them is."""
        if self.pending:
            return replace(self, wake_at=min(image.retry_at or now for image in self.pending))
        if self.status is Status.CANCELED:
            return replace(self, wake_at=None, holder=None).noted("late images kept", now)
        if self.artifacts:
            return self._moved(Status.SUCCEEDED, now, "succeeded", finished_at=now, given_up=None)
        why = self.given_up or _first(self.missing)
        return self._gave_up(why, now)

    # --- storing and final: a result comes again, or late ---------------------------------------------------------

    def _repeated(self, number: int, report: Succeeded, now: datetime) -> Job:
        """The same result again: fresh URLs are taken for what is not stored yet."""
        fresh = {image.index: image for image in report.images if image.url}
        pending = tuple(
            old.refreshed(fresh[old.index], now) if old.attempt == number and old.index in fresh else old
            for old in self.pending
        )
        if pending == self.pending:
            return self.noted(f"{number} reported again", now)
        return replace(self, pending=pending).noted(f"{number} reported again, with fresh URLs", now)

    def _salvageable(self, attempt: Attempt) -> bool:
        """Whether a result that comes now is still wanted: the job was given up in doubt, not on a clear refusal."""
        if self.status is not Status.FAILED or self.error is None:
            return False
        in_doubt = self.error.code in (Code.DEADLINE, Code.OUTCOME_UNKNOWN)
        return in_doubt or attempt.charged is not Charged.NO

    def _canceled_too_late(self, paid: Attempt, report: Succeeded, now: datetime, inline: Mapping[int, Inline]) -> Job:
        kept = bool(self.artifacts or self.pending)
        paid = replace(paid, outcome=Outcome.SURPLUS) if kept else paid
        job = self._with(paid).noted(f"{paid.number} succeeded after the cancel", now)
        if not self.keep_late or kept:
            return job
        stored = job._stores(paid.number, report, now, inline)
        return replace(
            stored, status=Status.CANCELED, finished_at=self.finished_at, error=None, deliveries=self.deliveries
        )

    # --- failed, canceled: a person tries again -------------------------------------------------------------------

    def retried(self, now: datetime, *, may_charge_again: bool = False) -> Job:
        """A person asks to try again. Raises NotPossible, or ChargePossible where it could be charged a second time."""
        if self.status not in (Status.FAILED, Status.CANCELED):
            raise NotPossible(f"job {self.id} is {self.status}: only a failed or canceled job can be retried")
        again = (*self.pending, *self._fetchable())
        if again or self.artifacts:
            return self._fetched_again(again, now)
        if not may_charge_again and any(attempt.charged is not Charged.NO for attempt in self.attempts):
            raise ChargePossible(self.id)
        return self._moved(
            Status.QUEUED,
            now,
            "retried by a person",
            wake_at=now,
            deadline_at=now + timedelta(seconds=self.deadline_seconds),
            attempts=tuple(attempt.unrepeatable() for attempt in self.attempts),
            attempts_allowed=len(self.attempts) + ATTEMPTS,
            pending=(),
            artifacts=(),
            missing=(),
            error=None,
            finished_at=None,
        )

    def _fetchable(self) -> tuple[PendingImage, ...]:
        again = (Code.STORAGE_ERROR, Code.RESULT_EXPIRED)
        return tuple(missing.image for missing in self.missing if missing.image and missing.code in again)

    def _fetched_again(self, images: tuple[PendingImage, ...], now: datetime) -> Job:
        indexes = {image.index for image in images}
        missing = tuple(missing for missing in self.missing if missing.index not in indexes)
        job = self._moved(
            Status.STORING,
            now,
            "retried by a person: fetching again",
            pending=tuple(image.anew() for image in images),
            missing=missing,
            error=None,
            finished_at=None,
        )
        return job._settled(now)

    # --- it tells of itself ---------------------------------------------------------------------------------------

    def deliverable(self, now: datetime) -> tuple[Delivery, ...]:
        """The deliveries that are to be tried now."""
        return tuple(item for item in self.deliveries if item.due(now))

    def delivered(self, delivery_id: str, attempt: Try) -> Job:
        """A delivery was tried: it is done, tried again later, or given up."""
        return self._redone(lambda item: item.tried(attempt) if item.id == delivery_id and item.open else item)

    def undelivered(self, now: datetime) -> Job:
        """Its host had no place for what is to be delivered now: later."""
        waiting = {item.id for item in self.deliverable(now)}
        return self._redone(lambda item: item.postponed(now) if item.id in waiting else item)

    def redelivered(self, delivery_id: str | None, now: datetime) -> Job:
        """A person wants a delivery (all of them, without an id) tried anew. Raises NotPossible when there is none."""
        if not any(delivery_id in (None, item.id) for item in self.deliveries):
            raise NotPossible(f"job {self.id} has no such delivery")
        return self._redone(lambda item: item.again(now) if delivery_id in (None, item.id) else item)

    def _redone(self, change: Callable[[Delivery], Delivery]) -> Job:
        """`updated_at` stays: what a delivery says of the job must not change because it was tried."""
        deliveries = tuple(change(item) for item in self.deliveries)
        return self if deliveries == self.deliveries else replace(self, deliveries=deliveries)

    def _announced(self, now: datetime) -> Job:
        """The job with a delivery for the status that it came to, where somebody wants to know."""
        if self.webhook_url is None or self.status not in self.webhook_events:
            return self
        number = len(self.deliveries) + 1
        told = Delivery(f"msg_{self.id}_{number}", self.status, created_at=now, next_at=now)
        return replace(self, deliveries=(*self.deliveries, told))

    # --- how a transition is written ------------------------------------------------------------------------------

    def _moved(self, status: Status, now: datetime, what: str, **changes: Any) -> Job:
        """The job in another status: free of its holder, its wake-up unset unless `changes` say otherwise.

        Whoever leaves `submitting` without news of the attempt on its way leaves a doubt on the ledger.
        """
        changes.setdefault("holder", None)
        changes.setdefault("wake_at", None)
        changes.setdefault("attempts", tuple(attempt.left_behind() for attempt in self.attempts))
        return replace(self, status=status, updated_at=now, **changes).noted(what, now)._announced(now)

    def _requeued(self, what: str, now: datetime, wait_seconds: float) -> Job:
        return self._moved(Status.QUEUED, now, what, wake_at=now + timedelta(seconds=wait_seconds))

    def _gave_up(self, why: Failure, now: datetime) -> Job:
        return self._moved(Status.FAILED, now, f"failed: {why.code}", error=why, given_up=None, finished_at=now)

    def _with(self, attempt: Attempt) -> Job:
        number = attempt.number
        return replace(self, attempts=(*self.attempts[: number - 1], attempt, *self.attempts[number:]))

    def noted(self, what: str, now: datetime) -> Job:
        """The same job with a line on its timeline."""
        last = self.timeline[-1] if self.timeline else None
        if last and last.what == what:
            again = replace(last, times=last.times + 1)
            return replace(self, timeline=(*self.timeline[:-1], again))
        return replace(self, timeline=(*self.timeline, Event(now, what))[-TIMELINE_LENGTH:])


def _first(missing: tuple[Missing, ...]) -> Failure:
    if missing:
        return Failure(missing[0].code, missing[0].message)
    return Failure(Code.PROVIDER_ERROR, "the provider reported success without images")
