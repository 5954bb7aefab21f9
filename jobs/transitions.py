"""How a job moves: pure functions, and the only code that assigns a status.

Each takes the job, what happened and the time, and returns the changed job. Something that is stale, late, repeated or meant
for another holder returns the very same object, or the same job with one more line on its timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from .attempt import Attempt, Outcome, Recovery, backoff_seconds, find_attempt
from .delivery import Delivery, Try
from .errors import ChargePossible, NotPossible
from .images import Artifact, InlineResult, Missing, PendingImage, Postponed, StoreResult, to_job_image
from .job import ATTEMPTS, WAITING, Event, Failure, Job, OnUnknown, Status
from .report import Charged, Code, Cost, Failed, Report, Running, Source, Succeeded
from .schedule import due_deliveries, is_overdue, is_poll_due
from .values import replace

#: how long until a job whose input images could not be fetched is tried again, in seconds
INPUT_PAUSE_SECONDS = 5.0
#: how many events the timeline holds, the latest ones
TIMELINE_LENGTH = 50


# --- which attempt is next --------------------------------------------------------------------------------------------


def is_resend(job: Job) -> bool:
    """Whether the next submission is the same attempt again, with the provider's idempotency key."""
    last = job.attempt
    return last is not None and last.recovery is Recovery.KEY and (last.outcome is Outcome.UNKNOWN or last.is_refused)


def next_number(job: Job) -> int:
    """The number of the next attempt to be sent."""
    return _last_number(job) + (0 if is_resend(job) else 1)


def _last_number(job: Job) -> int:
    return max((attempt.number for attempt in job.attempts), default=0)


def attempt_key(job: Job, number: int) -> str:
    """Our name for an attempt, the same whenever it is sent again."""
    return f"{job.id}-{number}"


# --- queued: a worker claims it ---------------------------------------------------------------------------------------


def claimed(job: Job, holder: str, now: datetime) -> Job:
    """A worker claims a queued or storing job; nothing is paid by that, and nothing else of the job changes."""
    if is_overdue(job, now):
        return expired(job, now)
    ready = job.holder is None and job.wake_at is not None and job.wake_at <= now
    if not ready or not (job.status is Status.QUEUED or job.pending):
        return job
    return replace(job, holder=holder)


def released(job: Job, holder: str, now: datetime) -> Job:
    """The holder gives the job back unchanged, or died: it can be claimed again now."""
    if job.holder != holder or job.status is Status.SUBMITTING:
        return job
    free = replace(job, holder=None, wake_at=now, updated_at=now)
    return _advanced(free, now) if job.pending else free


def input_failed(job: Job, holder: str, message: str, now: datetime, *, lasting: bool) -> Job:
    """The holder could not get the input images, so nothing was sent. Retried until the deadline, unless it is `lasting`."""
    if job.status is not Status.QUEUED or job.holder != holder:
        return job
    if lasting:
        return _failed(job, Failure(Code.INVALID_REQUEST, message), now)
    again = now + timedelta(seconds=INPUT_PAUSE_SECONDS)
    return noted(replace(job, holder=None, wake_at=again, updated_at=now), f"inputs: {message}", now)


def submitting(
    job: Job,
    holder: str,
    now: datetime,
    *,
    recovery: Recovery = Recovery.NONE,
    polled: bool = False,
    inline: bool = False,
    expected_cost: Cost | None = None,
) -> Job:
    """The holder writes the attempt on the ledger, right before it sends it. Unchanged for anybody else."""
    if is_overdue(job, now):
        return expired(job, now)
    if job.status is not Status.QUEUED or job.holder != holder:
        return job
    attempt = Attempt(
        next_number(job),
        job.operation,
        now,
        holder,
        recovery=recovery,
        polled=polled,
        inline=inline,
        expected_cost=expected_cost,
    )
    attempts = (*job.attempts, attempt)
    if is_resend(job):
        attempts = (*job.attempts[:-1], attempt.repeating(job.attempts[-1]))
    sent = _moved(job, Status.SUBMITTING, now, _submitting(attempt.number), attempts=attempts, holder=holder)
    # One webhook says that the job is being submitted, however often the provider refuses it for now.
    return replace(sent, deliveries=job.deliveries) if job.attempt and job.attempt.refusals else sent


def _submitting(number: int) -> str:
    return f"submitting {number}"


# --- submitting, running: the provider reports ------------------------------------------------------------------------


def reported(
    job: Job,
    number: int,
    report: Report,
    now: datetime,
    *,
    source: Source = Source.CALLBACK,
    inline: Mapping[int, InlineResult] | None = None,
) -> Job:
    """The provider reports on attempt `number`, by `source`: its answer, a callback or a poll, whichever comes first.

    `inline` says what became of the images that came inside the answer, by index.
    """
    line = find_attempt(job.attempts, number)
    if line is None:
        return job
    attempt = line if line.first_number is None else line.part(range(number, number + 1))
    match report:
        case Running():
            return _report_running(job, attempt, report, now)
        case Succeeded():
            return _report_success(job, attempt, report, now, inline or {})
        case Failed():
            return _report_failure(job, attempt, report, source, now)


def _is_decisive(job: Job, attempt: Attempt) -> bool:
    """Whether a report on this attempt decides what the job does next.

    It also does while the attempt waits to be sent again with its key, or was refused for now: the next one would be
    charged beside it.
    """
    is_current = job.attempt is not None and attempt.number == job.attempt.number
    if job.status is Status.QUEUED:
        return attempt.is_refused or (is_current and is_resend(job))
    return is_current and job.status in (Status.SUBMITTING, Status.RUNNING)


def _report_running(job: Job, attempt: Attempt, report: Running, now: datetime) -> Job:
    number = attempt.number
    if not (attempt.is_open or attempt.is_refused):
        return job
    known = attempt.accepted(report)
    # A queued job waits for an attempt that the provider is rendering after all, instead of sending another one.
    if not (job.status is Status.QUEUED or _is_decisive(job, attempt)):
        return job if known == attempt else noted(_with(job, known), f"{number} accepted too late", now)
    if job.status is not Status.RUNNING:
        running = _moved(_with_current(job, known), Status.RUNNING, now, f"running {number}")
        return replace(running, wake_at=known.next_poll_at(now))
    if known == attempt and (job.wake_at is None or job.wake_at > now):
        return job
    return replace(_with(job, known), wake_at=known.next_poll_at(now), updated_at=now)


def poll_postponed(job: Job, now: datetime) -> Job:
    """A poll found nothing new: poll again later."""
    if not is_poll_due(job, now) or job.attempt is None:
        return job
    return replace(job, wake_at=job.attempt.next_poll_at(now), updated_at=now)


def _report_success(
    job: Job, attempt: Attempt, report: Succeeded, now: datetime, inline: Mapping[int, InlineResult]
) -> Job:
    number = attempt.number
    if attempt.outcome in (Outcome.SUCCEEDED, Outcome.SURPLUS):
        return _report_repeated(job, number, report, now)
    paid = attempt.succeeded(report, now)
    if job.status in WAITING or _is_result_wanted(job, attempt):
        return _storing(_with(job, paid), number, report, now, inline)
    if job.status is Status.CANCELED:
        return _report_after_cancel(job, paid, report, now, inline)
    surplus = Outcome.SURPLUS if job.status in (Status.STORING, Status.SUCCEEDED) else Outcome.SUCCEEDED
    return noted(_with(job, replace(paid, outcome=surplus)), f"{number} succeeded too late", now)


def _storing(job: Job, number: int, report: Succeeded, now: datetime, inline: Mapping[int, InlineResult]) -> Job:
    images = [to_job_image(image, number, inline.get(image.index), now) for image in report.images]
    missing = (image for image in images if isinstance(image, Missing))
    moved = _moved(
        job,
        Status.STORING,
        now,
        f"storing {number}",
        wake_at=now,
        pending=tuple(image for image in images if isinstance(image, PendingImage)),
        artifacts=tuple(image for image in images if isinstance(image, Artifact)),
        missing=(*_not_offered(job, report), *missing),
        given_up=job.error,
        error=None,
        finished_at=None,
    )
    return _advanced(moved, now)


def _not_offered(job: Job, report: Succeeded) -> tuple[Missing, ...]:
    offered = {image.index for image in report.images}
    message = f"the provider returned {len(offered)} of {job.images_expected} images"
    absent = (index for index in range(job.images_expected) if index not in offered)
    return tuple(Missing(index, Code.PROVIDER_ERROR, message) for index in absent)


def _report_failure(job: Job, attempt: Attempt, report: Failed, source: Source, now: datetime) -> Job:
    what = f"{attempt.number} {report.code}"
    # A callback or a poll says that the provider had begun although it refused the attempt.
    has_begun = attempt.is_refused and source is not Source.ANSWER and not report.is_not_now
    if not (attempt.is_open or has_begun):
        return noted(job, f"{what} too late", now)
    if source is Source.ANSWER and attempt.outcome is Outcome.ACCEPTED:
        return noted(job, f"{what} after it was accepted", now)
    ended = attempt.failed(report, now)
    if not _is_decisive(job, attempt):
        return noted(_with(job, ended), f"{what} too late", now)
    # An answer that names no job of the provider's says nothing about an earlier send with the same key.
    same_key = attempt.recovery is Recovery.KEY and source is Source.ANSWER and report.external_id is None
    if report.is_not_now and (same_key or attempt.recovery is not Recovery.KEY):
        return _refused(job, attempt.refused(report, now), report, now)
    if same_key and report.retryable and attempt.counted_times < job.attempts_allowed:
        unclear = replace(attempt.unknown(), code=report.code, message=report.message)
        return _requeued(_with(job, unclear), f"{what}: same key", now, attempt.counted_times, report)
    is_free = ended.charged is Charged.NO or job.on_unknown is OnUnknown.CHARGE_AGAIN
    if not (report.retryable and is_free and _has_attempts_left(job)):
        return _failed(_with(job, ended), Failure(report.code, report.message), now)
    return _requeued(_with(job, ended), f"{what}: retry", now, _counted_attempts(job), report)


def _refused(job: Job, attempt: Attempt, report: Failed, now: datetime) -> Job:
    """The provider refused the current attempt for now: retried until the deadline, as one line of ledger and timeline."""
    *earlier, line = _with(job, attempt).attempts
    if earlier and _is_run(earlier[-1], line):
        line = line.after(earlier.pop())
    said = job.timeline[-1].what if job.timeline else ""
    timeline = job.timeline[:-1] if said == _submitting(attempt.number) else job.timeline
    what = f"refused for now: {report.code}"
    if timeline and timeline[-1].what.startswith("refused for now: "):
        timeline = (*timeline[:-1], replace(timeline[-1], what=what))
    refused = replace(job, attempts=(*earlier, line), timeline=timeline)
    queued = _requeued(refused, what, now, line.refusals, report)
    return replace(queued, deliveries=job.deliveries)


def _is_run(earlier: Attempt, later: Attempt) -> bool:
    """Whether two neighboring lines become one: both were only refused for now, each under a number of its own."""
    return earlier.number + 1 == later.numbers[0] and all(
        line.is_refused and line.recovery is not Recovery.KEY and line.times == len(line.numbers)
        for line in (earlier, later)
    )


def _counted_attempts(job: Job) -> int:
    return sum(not attempt.is_refused for attempt in job.attempts)


def _has_attempts_left(job: Job) -> bool:
    return _counted_attempts(job) < job.attempts_allowed


# --- submitting: the outcome is unknown -------------------------------------------------------------------------------


def outcome_lost(job: Job, holder: str, now: datetime, *, number: int | None = None) -> Job:
    """The holder died, or its connection broke after bytes went out: the outcome of the current attempt is unknown.

    `number` is the attempt whose connection broke; the same holder may be sending another one by then.
    """
    if job.holder != holder or number not in (None, _last_number(job)):
        return job
    if job.status is not Status.SUBMITTING:
        return released(job, holder, now)
    attempt = job.attempts[-1].unknown()
    lost, what = _with(job, attempt), f"outcome of {attempt.number} unknown"
    match attempt.recovery:
        case Recovery.KEY if attempt.counted_times < job.attempts_allowed:
            return _requeued(lost, f"{what}: same key", now, attempt.counted_times)
        case Recovery.CALLBACK:
            return _moved(lost, Status.RUNNING, now, f"{what}: waiting for its callback")
        case Recovery.LOOKUP:
            return _moved(lost, Status.RUNNING, now, f"{what}: asking the provider", wake_at=now)
    if job.on_unknown is OnUnknown.CHARGE_AGAIN and _has_attempts_left(job):
        again = _with(lost, attempt.unrepeatable())
        return _requeued(again, f"{what}: charging again", now, _counted_attempts(job))
    message = f"attempt {attempt.number} was sent and its outcome is unknown; it may have been charged"
    return _failed(lost, Failure(Code.OUTCOME_UNKNOWN, message), now)


# --- queued, submitting, running: the waiting ends --------------------------------------------------------------------


def expired(job: Job, now: datetime) -> Job:
    """The deadline ends the waiting for a provider, but never the storing."""
    if not is_overdue(job, now):
        return job
    message, last = f"no result within {job.deadline_seconds:g} s", job.attempt
    if last is not None and last.refusals and last.outcome in (Outcome.REJECTED, Outcome.NOT_SENT, Outcome.UNKNOWN):
        often = "once" if last.refusals == 1 else f"{last.refusals} times"
        message += f"; the provider refused it {often}, most recently with {last.code}: {last.message}"
    return _failed(job, Failure(Code.DEADLINE, message), now)


def canceled(job: Job, now: datetime) -> Job:
    """A person or the application cancels the job. What was sent may still be charged, and the ledger says so."""
    if job.status not in WAITING:
        return job
    return _moved(job, Status.CANCELED, now, "canceled", finished_at=now)


# --- storing ----------------------------------------------------------------------------------------------------------


def stored(job: Job, number: int, results: Mapping[int, StoreResult], now: datetime) -> Job:
    """The images of attempt `number` that were stored, given up or postponed, by index."""
    waiting = {image.index: image for image in job.pending if image.attempt == number}
    tried = [(waiting[index], result) for index, result in results.items() if index in waiting]
    if not tried:
        return job
    artifacts = tuple(result for _, result in tried if isinstance(result, Artifact))
    given_up = tuple(replace(result, image=image) for image, result in tried if isinstance(result, Missing))
    again = {image.index: image.postponed(result, now) for image, result in tried if isinstance(result, Postponed)}
    done = {image.index for image, result in tried if not isinstance(result, Postponed)}
    changed = replace(
        job,
        artifacts=tuple(sorted((*job.artifacts, *artifacts), key=lambda artifact: artifact.index)),
        missing=tuple(sorted((*job.missing, *given_up), key=lambda missing: missing.index)),
        pending=tuple(again.get(image.index, image) for image in job.pending if image.index not in done),
        holder=None,
        updated_at=now,
    )
    return _advanced(changed, now)


def _advanced(job: Job, now: datetime) -> Job:
    """Final once each image is stored or missing; until then due when the first of them is."""
    if job.pending:
        return replace(job, wake_at=min(image.retry_at or now for image in job.pending))
    if job.status is Status.CANCELED:
        return noted(replace(job, wake_at=None, holder=None), "late images stored", now)
    if job.artifacts:
        return _moved(job, Status.SUCCEEDED, now, "succeeded", finished_at=now, given_up=None)
    why = Failure(Code.PROVIDER_ERROR, "the provider reported success without images")
    if job.missing:
        why = Failure(job.missing[0].code, job.missing[0].message)
    return _failed(job, job.given_up or why, now)


# --- storing and final: a result is repeated, or late -----------------------------------------------------------------


def _report_repeated(job: Job, number: int, report: Succeeded, now: datetime) -> Job:
    """The same result again: its fresh URLs replace those of images that are not stored yet."""
    fresh = {image.index: image for image in report.images if image.url}
    pending = tuple(
        old.refreshed(fresh[old.index], now) if old.attempt == number and old.index in fresh else old
        for old in job.pending
    )
    if pending == job.pending:
        return noted(job, f"{number} reported again", now)
    return noted(replace(job, pending=pending), f"{number} reported again, with fresh URLs", now)


def _is_result_wanted(job: Job, attempt: Attempt) -> bool:
    """Whether a result of a failed job is still stored: the job failed in doubt, not by a clear refusal."""
    if job.status is not Status.FAILED or job.error is None:
        return False
    in_doubt = job.error.code in (Code.DEADLINE, Code.OUTCOME_UNKNOWN) or attempt.refusals > 0
    return in_doubt or attempt.charged is not Charged.NO


def _report_after_cancel(
    job: Job, paid: Attempt, report: Succeeded, now: datetime, inline: Mapping[int, InlineResult]
) -> Job:
    has_images = bool(job.artifacts or job.pending)
    paid = replace(paid, outcome=Outcome.SURPLUS) if has_images else paid
    changed = noted(_with(job, paid), f"{paid.number} succeeded after the cancel", now)
    if not job.keep_late or has_images:
        return changed
    late = _storing(changed, paid.number, report, now, inline)
    return replace(late, status=Status.CANCELED, finished_at=job.finished_at, error=None, deliveries=job.deliveries)


# --- failed, canceled: a person retries -------------------------------------------------------------------------------


def retried(job: Job, now: datetime, *, may_charge_again: bool = False) -> Job:
    """A person retries the job. Raises NotPossible, or ChargePossible where it could be charged a second time."""
    if job.status not in (Status.FAILED, Status.CANCELED):
        raise NotPossible(f"job {job.id} is {job.status}: only a failed or canceled job can be retried")
    codes = (Code.STORAGE_ERROR, Code.RESULT_EXPIRED)
    missing = (missing.image for missing in job.missing if missing.image and missing.code in codes)
    again = (*job.pending, *missing)
    if again or job.artifacts:
        return _fetched_again(job, again, now)
    if not may_charge_again and any(attempt.charged is not Charged.NO for attempt in job.attempts):
        raise ChargePossible(job.id)
    return _moved(
        job,
        Status.QUEUED,
        now,
        "retried by a person",
        wake_at=now,
        deadline_at=now + timedelta(seconds=job.deadline_seconds),
        attempts=tuple(attempt.unrepeatable() for attempt in job.attempts),
        attempts_allowed=_counted_attempts(job) + ATTEMPTS,
        pending=(),
        artifacts=(),
        missing=(),
        error=None,
        finished_at=None,
    )


def _fetched_again(job: Job, images: tuple[PendingImage, ...], now: datetime) -> Job:
    indexes = {image.index for image in images}
    moved = _moved(
        job,
        Status.STORING,
        now,
        "retried by a person: fetching the images again",
        pending=tuple(image.untried() for image in images),
        missing=tuple(missing for missing in job.missing if missing.index not in indexes),
        error=None,
        finished_at=None,
    )
    return _advanced(moved, now)


# --- webhooks ---------------------------------------------------------------------------------------------------------


def delivery_tried(job: Job, delivery_id: str, attempt: Try) -> Job:
    """A delivery was tried: it is delivered, tried again later, or given up."""
    return _with_deliveries(job, lambda item: item.tried(attempt) if item.id == delivery_id and item.is_open else item)


def deliveries_postponed(job: Job, now: datetime) -> Job:
    """The endpoint's host has too many other deliveries in progress: the due ones are tried later."""
    due = {item.id for item in due_deliveries(job, now)}
    return _with_deliveries(job, lambda item: item.postponed(now) if item.id in due else item)


def redelivered(job: Job, delivery_id: str | None, now: datetime) -> Job:
    """A person wants a delivery (without an id, all of them) to be tried again. Raises NotPossible when there is none."""
    if not any(delivery_id in (None, item.id) for item in job.deliveries):
        raise NotPossible(f"job {job.id} has no such delivery")
    return _with_deliveries(job, lambda item: item.restarted(now) if delivery_id in (None, item.id) else item)


def _with_deliveries(job: Job, change: Callable[[Delivery], Delivery]) -> Job:
    """`updated_at` stays: what a webhook says of the job must not change because it was tried."""
    deliveries = tuple(change(item) for item in job.deliveries)
    return job if deliveries == job.deliveries else replace(job, deliveries=deliveries)


# --- how a transition is written --------------------------------------------------------------------------------------


def _moved(job: Job, status: Status, now: datetime, what: str, **changes: Any) -> Job:
    """The job in another status: free of its holder, without a wake-up unless `changes` say otherwise.

    An attempt that is still being sent becomes one with an unknown outcome. A webhook is queued where one is wanted.
    """
    changes.setdefault("holder", None)
    changes.setdefault("wake_at", None)
    changes.setdefault("attempts", tuple(attempt.left() for attempt in job.attempts))
    if job.webhook_url is not None and status in job.webhook_events:
        delivery = Delivery(f"msg_{job.id}_{len(job.deliveries) + 1}", status, created_at=now, next_at=now)
        changes["deliveries"] = (*job.deliveries, delivery)
    return noted(replace(job, status=status, updated_at=now, **changes), what, now)


def _requeued(job: Job, what: str, now: datetime, failures: int, report: Failed | None = None) -> Job:
    """The job, queued again after so many failures: not later than halfway to its deadline, unless the provider asks.

    If the provider is rendering an earlier attempt after all, the job waits for that one instead.
    """
    accepted = next((attempt for attempt in job.attempts if attempt.outcome is Outcome.ACCEPTED), None)
    if accepted is not None:
        waiting = _moved(_with_current(job, accepted), Status.RUNNING, now, f"{what}; waiting for {accepted.number}")
        return replace(waiting, wake_at=accepted.next_poll_at(now))
    asked_seconds = report.retry_after_seconds if report else None
    left_seconds = max((job.deadline_at - now).total_seconds(), 0.0)
    planned_seconds = min(backoff_seconds(failures, job.id), max(left_seconds / 2, 1.0))
    wait = timedelta(seconds=min(max(planned_seconds, asked_seconds or 0.0), left_seconds))
    return _moved(job, Status.QUEUED, now, what, wake_at=now + wait)


def _failed(job: Job, why: Failure, now: datetime) -> Job:
    return _moved(job, Status.FAILED, now, f"failed: {why.code}", error=why, given_up=None, finished_at=now)


def _with(job: Job, attempt: Attempt) -> Job:
    """The job with this attempt in place of the line that has its number; a run is divided around it."""
    ledger: list[Attempt] = []
    for line in job.attempts:
        if attempt.number not in line.numbers:
            ledger.append(line)
            continue
        before = range(line.numbers[0], attempt.number)
        after = range(attempt.number + 1, line.number + 1)
        ledger += [
            *(line.part(part) for part in (before,) if part),
            attempt,
            *(line.part(part) for part in (after,) if part),
        ]
    return replace(job, attempts=tuple(ledger))


def _with_current(job: Job, attempt: Attempt) -> Job:
    """The job with this attempt as its current one, the last of the ledger."""
    ledger = _with(job, attempt).attempts
    others = tuple(line for line in ledger if line.number != attempt.number)
    return replace(job, attempts=(*others, attempt))


def noted(job: Job, what: str, now: datetime) -> Job:
    """The same job with one more line on its timeline."""
    last = job.timeline[-1] if job.timeline else None
    if last and last.what == what:
        again = replace(last, times=last.times + 1)
        return replace(job, timeline=(*job.timeline[:-1], again))
    return replace(job, timeline=(*job.timeline, Event(now, what))[-TIMELINE_LENGTH:])
