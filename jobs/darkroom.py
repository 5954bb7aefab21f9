"""What can be done with a job: enqueue, get, wait, cancel, retry, and the news of a provider. Each is one change and one dispatch."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Self

from . import address_guard, providers, queue
from .errors import IdempotencyConflict, InvalidRequest, JobNotFound
from .image_file import Facts, RejectedImage, measure
from .job import Event, Inline, Job, OnUnknown, Status
from .providers import _parsing as parsing
from .providers import _redaction as redaction
from .report import Failed, Report
from .request import ImageRule, LocalImage, Request
from .settings import Settings
from .settings import current as current_settings
from .state.repository import Change, Existing, Repository, Transition
from .storage import Storage, open_storage, staged_key
from .values import replace

#: the largest `metadata` of a job, as JSON
MAX_METADATA_BYTES = 16 << 10
#: the longest field of a request that is no image: a record is read and written at every step of its job
MAX_FIELD_CHARACTERS = 1 << 16
#: the longest deadline that can be asked for
MAX_DEADLINE_SECONDS = 7 * 86_400
#: the longest URL that is taken from outside
MAX_URL_LENGTH = 4096
#: how long a rescue may take
_RESCUE_SECONDS = 30.0

_STATUSES = frozenset(Status)


#: an image that is no URL, and what it is
Local = tuple[LocalImage, Facts]


@dataclass(frozen=True)
class NewJob:
    """One request and what is wanted for it; the fields are those of `Darkroom.enqueue`."""

    request: Request
    metadata: Mapping[str, Any] | None = None
    deadline_seconds: float | None = None
    on_unknown: str = OnUnknown.FAIL
    keep_late: bool = False
    webhook_url: str | None = None
    webhook_events: Iterable[str] | None = None


@dataclass(frozen=True)
class Darkroom:
    """Everything that acts on jobs, bound to one set of settings. Thread-safe."""

    settings: Settings
    repository: Repository
    storage: Storage
    dispatch: queue.Dispatch

    @classmethod
    def open(cls, settings: Settings, *, patience_seconds: float = 0.0) -> Self:
        """Opens Redis, broker and storage; each connects when it is first used."""
        repository = Repository.open(
            settings.redis_url,
            retention_seconds=settings.retention_seconds,
            patience_seconds=patience_seconds,
            replicas=settings.redis_wait_replicas,
        )
        storage = open_storage(
            settings.storage_url,
            public_url=settings.public_url or None,
            secret_keys=[key.get_secret_value() for key in settings.secret_keys],
        )
        dispatch = queue.Dispatch(queue.application(settings), settings.broker_is_redis)
        return cls(settings, repository, storage, dispatch)

    def close(self) -> None:
        """Wake whoever waits and close the connections to Redis, the broker and the storage."""
        self.repository.close()
        self.dispatch.app.close()
        self.storage.close()

    # --- producers ------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        request: Request,
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        deadline_seconds: float | None = None,
        on_unknown: str = OnUnknown.FAIL,
        keep_late: bool = False,
        webhook_url: str | None = None,
        webhook_events: Iterable[str] | None = None,
        owner: str = "",
        fingerprint: str = "",
    ) -> Job:
        """Accepts one request. One round trip to Redis, and one to the storage for each image that is not a URL.

        The idempotency key stands for the request and the `fingerprint` of whatever else the caller wants to be the same.
        Raises InvalidRequest (nothing was written), IdempotencyConflict, RedisUnavailable or StorageError.
        """
        events = _events(webhook_events)
        wanted = NewJob(request, metadata, deadline_seconds, on_unknown, keep_late, webhook_url, events)
        idempotency_key = _checked_key(idempotency_key)
        self._check(wanted)
        job = self._new(wanted, self._staged(request), self.repository.now(), owner)
        digest = _digest(fingerprint, job) if idempotency_key else ""
        made = self.repository.create(
            job, message=self.dispatch.message(job), idempotency_key=idempotency_key, request_digest=digest
        )
        if isinstance(made, Existing):
            return self.get(_same(made, idempotency_key, digest)[0])
        self.dispatch.publish(job)
        return self.bound(job)

    def enqueue_many(
        self, wanted: Sequence[NewJob], *, idempotency_key: str | None = None, owner: str = "", fingerprint: str = ""
    ) -> tuple[Job, ...]:
        """Accepts all of these requests or none, in one step. The field of an InvalidRequest begins with a request's index.

        Raises what `enqueue` does.
        """
        idempotency_key = _checked_key(idempotency_key)
        local = [self._checked(index, one) for index, one in enumerate(wanted)]
        staged = [self._stored(one.request, images) for one, images in zip(wanted, local, strict=True)]
        now = self.repository.now()
        jobs = [self._new(one, request, now, owner) for one, request in zip(wanted, staged, strict=True)]
        # A millisecond apart, so that lists show them in their order.
        jobs = [replace(job, created_at=now - timedelta(milliseconds=i)) for i, job in enumerate(reversed(jobs))][::-1]
        digest = _digest(fingerprint, *jobs) if idempotency_key else ""
        made = self.repository.create_many(
            [(job, self.dispatch.message(job)) for job in jobs], idempotency_key=idempotency_key, request_digest=digest
        )
        if isinstance(made, Existing):
            found = self.repository.get_many(_same(made, idempotency_key, digest))
            return tuple(self.bound(job) for job in found.values() if job)
        # Where the broker does not take one, it need not be asked for each of a thousand.
        all(self.dispatch.publish(job) for job in jobs)
        return tuple(jobs)

    def get(self, job_id: str) -> Job:
        """The job as it stands. Raises JobNotFound. One round trip."""
        job = self.repository.get(_checked_id(job_id))
        # A worker may still find pictures of an answer that a dead one had begun to keep.
        grace = timedelta(seconds=_RESCUE_SECONDS if job.attempt and job.attempt.inline and job.holder else 0)
        if job.overdue(self.repository.now() - grace):
            # No worker lives to see the deadline; whoever asks ends the waiting.
            job = self.repository.update(job.id, Job.expired, known=job).after
        return self.bound(job)

    def list(
        self,
        statuses: Iterable[Status] = (),
        *,
        unknown: bool = False,
        owner: str = "",
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> tuple[Job, ...]:
        """The latest jobs first; `before` continues after the last one seen: its created_at in ms, and its id.

        With an owner, its jobs in whatever status.
        """
        found = self.repository.list(statuses, unknown=unknown, owner=owner, before=before, limit=limit)
        return tuple(self.bound(job) for job in found)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it is final. Raises TimeoutError after `timeout` seconds; without one it waits for ever."""
        give_up_at = None if timeout is None else time.monotonic() + timeout
        with self.repository.changes.listen(_checked_id(job_id)) as waiter:
            while not (job := self.get(job_id)).status.final:
                left = math.inf if give_up_at is None else give_up_at - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"job {job_id} is still {job.status} after {timeout:g} s; it goes on")
                waiter.wait(left)
        return job

    def cancel(self, job_id: str) -> Job:
        """Cancels a job that still waits for a provider; a job past that is returned as it is. Raises JobNotFound."""
        return self.bound(self.advance(_checked_id(job_id), Job.canceled).after)

    def retry(self, job_id: str, *, may_charge_again: bool = False) -> Job:
        """Tries a failed or canceled job again. Raises JobNotFound, NotPossible, or ChargePossible."""
        change = self.advance(_checked_id(job_id), lambda job, now: job.retried(now, may_charge_again=may_charge_again))
        return self.bound(change.after)

    def redeliver(self, job_id: str, delivery_id: str | None = None) -> Job:
        """Tries a delivery of the job (all of them, without an id) anew. Raises JobNotFound or NotPossible."""
        return self.bound(self.advance(_checked_id(job_id), lambda job, now: job.redelivered(delivery_id, now)).after)

    def bound(self, job: Job) -> Job:
        """The job with artifacts whose `url()` can sign."""
        if not job.artifacts:
            return job
        return replace(job, artifacts=tuple(replace(item, sign=self.storage.url) for item in job.artifacts))

    # --- news -----------------------------------------------------------------------------------------------------

    def advance(self, job_id: str, change: Transition, *, known: Job | None = None) -> Change:
        """One change and one dispatch: whoever must act on the changed job is told in the same step."""
        done = self.repository.update(job_id, change, known=known, message=self.dispatch.message)
        if done.applied:
            self.dispatch.publish(done.after)
        return done

    def report(self, job_id: str, number: int, report: Report, *, known: Job | None = None) -> Change:
        """What a provider said of one attempt, by a callback or a poll."""
        return self.advance(job_id, reporting(number, report), known=known)

    # --- what is wanted is checked --------------------------------------------------------------------------------

    def _checked(self, index: int, wanted: NewJob) -> Mapping[str, Local]:
        """Checks one of many requests, its images included; nothing is written. Raises InvalidRequest."""
        try:
            self._check(wanted)
            return self._local_images(wanted.request)
        except InvalidRequest as error:
            raise InvalidRequest(f"{index}.{error.field}", error.value, error.allowed) from None

    def _check(self, wanted: NewJob) -> None:
        _check_fields(wanted.request)
        _check_options(wanted.metadata, wanted.deadline_seconds, wanted.on_unknown)
        self._notification(wanted.webhook_url, wanted.webhook_events)

    def _notification(self, url: str | None, events: Iterable[str] | None) -> tuple[str | None, tuple[Status, ...]]:
        """Where the job will tell of itself, and of which statuses. Raises InvalidRequest."""
        webhook_events = self.settings.webhook_events if events is None else _statuses(events)
        webhook_url = url or self.settings.webhook_url or None
        if webhook_url is not None:
            self._check_url("webhook_url", webhook_url)
        return webhook_url, webhook_events

    def _check_url(self, field: str, url: str) -> None:
        """What can be said of a URL without looking up its host; the rest is checked where the connection is opened."""
        match = address_guard.URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH and parsing.url(url) else None
        if match is None:
            raise InvalidRequest(
                field, "no URL", f"an https URL of at most {MAX_URL_LENGTH} characters, without a user"
            )
        if match["scheme"].lower() == "http" and not self.settings.allowed_private_networks:
            raise InvalidRequest(field, f"a plain http URL at {match['host']}", "an https URL")

    def _new(self, wanted: NewJob, staged: Request, now: datetime, owner: str) -> Job:
        webhook_url, webhook_events = self._notification(wanted.webhook_url, wanted.webhook_events)
        operation = providers.operation(staged.operation)
        seconds = float(wanted.deadline_seconds or operation.deadline_seconds)
        return Job(
            id=secrets.token_hex(16),
            operation=operation.name,
            params=staged.params(),
            status=Status.QUEUED,
            created_at=now,
            updated_at=now,
            deadline_at=now + timedelta(seconds=seconds),
            deadline_seconds=seconds,
            images_expected=operation.images_expected(staged),
            wake_at=now,
            metadata=dict(wanted.metadata or {}),
            owner=owner,
            on_unknown=OnUnknown(wanted.on_unknown),
            keep_late=wanted.keep_late,
            timeline=(Event(now, "queued"),),
            webhook_url=webhook_url,
            webhook_events=webhook_events,
        )

    # --- images of a request --------------------------------------------------------------------------------------

    def _staged(self, request: Request) -> Request:
        """The request with each image in storage under its digest. All are checked before the first is written."""
        return self._stored(request, self._local_images(request))

    def _local_images(self, request: Request) -> Mapping[str, Local]:
        """The images that are no URL, measured, by field; those that are, checked. Raises InvalidRequest."""
        local: dict[str, Local] = {}
        for field, rule, image in request.images():
            if isinstance(image, LocalImage):
                local[field] = image, _checked_image(field, rule, image.content)
            else:
                self._check_reference(field, image)
        return local

    def _stored(self, request: Request, local: Mapping[str, Local]) -> Request:
        return request.with_images({field: self.stage(image, facts) for field, (image, facts) in local.items()})

    def stage(self, image: LocalImage, facts: Facts) -> str:
        """Writes an image under its SHA-256 and returns the reference to it; written again, it only stays longer."""
        key = staged_key(facts.sha256, facts.extension)
        if not self.storage.renew(key):
            self.storage.put(key, image.content, content_type=facts.content_type, metadata={"sha256": facts.sha256})
        return f"staged:{facts.sha256}.{facts.extension}"

    def _check_reference(self, field: str, reference: str) -> None:
        if not reference.startswith("staged:"):
            self._check_url(field, reference)
            return
        if not self.storage.renew(reference_key(reference)):
            raise InvalidRequest(field, reference, "the reference of an image that is still staged; upload it again")


def reporting(
    number: int, report: Report, *, inline: Mapping[int, Inline] | None = None
) -> Callable[[Job, datetime], Job]:
    """The change that a report makes."""

    def change(job: Job, now: datetime) -> Job:
        return job.reported(number, _discreet(report, job), now, inline=inline)

    return change


def _discreet(report: Report, job: Job) -> Report:
    """The report without what the vendor quotes of the request's prompts."""
    if not isinstance(report, Failed):
        return report
    return replace(report, message=redaction.unquoted(report.message, job.params))


def reference_key(reference: str) -> str:
    """The storage key behind `staged:<sha256>.<extension>`."""
    sha256, _, extension = reference.removeprefix("staged:").partition(".")
    return staged_key(sha256, extension)


def _checked_image(field: str, rule: ImageRule, content: bytes) -> Facts:
    allowed = f"{', '.join(rule.content_types)} of at most {rule.max_bytes} bytes"
    try:
        facts = measure(content, max_bytes=rule.max_bytes)
    except RejectedImage as error:
        raise InvalidRequest(field, str(error), allowed) from None
    if facts.content_type not in rule.content_types:
        raise InvalidRequest(field, facts.content_type, allowed)
    return facts


def _events(given: Iterable[str] | None) -> tuple[str, ...] | None:
    """The events in a tuple, for they are read twice; one alone may be given as it is."""
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)


def _checked_key(idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return ""
    if not isinstance(idempotency_key, str):
        raise InvalidRequest("idempotency_key", f"a {type(idempotency_key).__name__}", "a string")
    if len(idempotency_key) > 255 or not idempotency_key.isprintable():
        raise InvalidRequest("idempotency_key", f"{len(idempotency_key)} characters", "up to 255 printable characters")
    return idempotency_key


def _statuses(events: Iterable[str]) -> tuple[Status, ...]:
    named = tuple(events)
    if strange := set(named) - _STATUSES:
        raise InvalidRequest("webhook_events", ", ".join(sorted(strange)), ", ".join(Status))
    return tuple(Status(event) for event in named)


def _check_fields(request: Request) -> None:
    for name, value in request:
        if name not in request.image_rules and (length := len(str(value))) > MAX_FIELD_CHARACTERS:
            raise InvalidRequest(name, f"{length} characters", f"at most {MAX_FIELD_CHARACTERS}")


def _check_options(metadata: Mapping[str, Any] | None, deadline_seconds: float | None, on_unknown: str) -> None:
    if deadline_seconds is not None and not 1 <= deadline_seconds <= MAX_DEADLINE_SECONDS:
        raise InvalidRequest("deadline_seconds", f"{deadline_seconds:g}", f"1 to {MAX_DEADLINE_SECONDS}")
    if on_unknown not in tuple(OnUnknown):
        raise InvalidRequest("on_unknown", repr(on_unknown), ", ".join(OnUnknown))
    _check_metadata(metadata)


def _check_metadata(metadata: Mapping[str, Any] | None) -> None:
    if not metadata:
        return
    try:
        size = len(json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidRequest("metadata", str(error), "an object of JSON values") from None
    if strange := [key for key in metadata if not isinstance(key, str)]:
        raise InvalidRequest("metadata", f"the key {strange[0]!r}", "an object of JSON values: its keys are strings")
    if size > MAX_METADATA_BYTES:
        raise InvalidRequest("metadata", f"{size} bytes", f"at most {MAX_METADATA_BYTES} bytes of JSON")


def _checked_id(job_id: str) -> str:
    if not isinstance(job_id, str) or len(job_id) != 32 or not job_id.isalnum():
        raise JobNotFound(str(job_id))
    return job_id


def _digest(fingerprint: str, *jobs: Job) -> str:
    wanted = [[job.operation, job.params] for job in jobs]
    text = json.dumps([fingerprint, *wanted], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _same(existing: Existing, idempotency_key: str, digest: str) -> Sequence[str]:
    """The ids of the jobs that this request created before. Raises IdempotencyConflict when it was another request."""
    if existing.request_digest != digest:
        raise IdempotencyConflict(idempotency_key, existing.job_ids[0])
    return existing.job_ids


@lru_cache(maxsize=8)
def _open(settings: Settings) -> Darkroom:
    return Darkroom.open(settings, patience_seconds=2.0)


def current() -> Darkroom:
    """The Darkroom of this process's environment."""
    return _open(current_settings())


def enqueue(request: Request, **options: Any) -> Job:
    """Enqueues one request; see `Darkroom.enqueue` for the options and errors."""
    return current().enqueue(request, **options)


def get(job_id: str) -> Job:
    """The job as it stands. Raises JobNotFound."""
    return current().get(job_id)


def wait(job_id: str, timeout: float | None = None) -> Job:
    """The job once it is final. Raises TimeoutError after `timeout` seconds."""
    return current().wait(job_id, timeout)


def cancel(job_id: str) -> Job:
    """Cancels a job that still waits for a provider. Raises JobNotFound."""
    return current().cancel(job_id)


def retry(job_id: str, *, may_charge_again: bool = False) -> Job:
    """Tries a failed or canceled job again. Raises JobNotFound, NotPossible, or ChargePossible."""
    return current().retry(job_id, may_charge_again=may_charge_again)
