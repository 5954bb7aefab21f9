"""The functions of `jobs`: each acts on the Darkroom that the settings of the environment describe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from .darkroom import current
from .job import Job, OnUnknown
from .listing import Page
from .new_job import NewJob
from .request import JsonValue, Request


def enqueue(
    request: Request,
    *,
    idempotency_key: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
    deadline_seconds: float | None = None,
    on_unknown: OnUnknown | Literal["fail", "charge_again"] = OnUnknown.FAIL,
    keep_late: bool = False,
    webhook_url: str | None = None,
    webhook_events: Iterable[str] | None = None,
) -> Job:
    """Enqueue one request.

    Takes one round trip to Redis, and one to the storage for each image that is not a URL. The job is accepted when this
    returns: it ends in a final status, whichever process dies in between.

    Args:
        request: What to render, for example a `deepmode.Generate`. An image field takes an https URL, `bytes`, a
            `pathlib.Path`, a file object opened in binary mode, or an upload reference (`staged:...`).
        idempotency_key: 1 to 255 printable characters, for example your order's number. The same key with the same
            request returns the first job, for the job's deadline plus `DARKROOM_RETENTION_SECONDS` from the enqueue, or
            until its record is gone.
        metadata: Your own data, at most 16 kB as JSON. It comes back with the job and in webhooks.
        deadline_seconds: How long to wait for the provider, 1 to 604,800 seconds. Default: the operation's own deadline.
        on_unknown: What happens when it is not known whether an attempt was charged: `"fail"` fails the job with
            `outcome_unknown`, `"charge_again"` sends a new attempt, up to four in all; each may be charged.
        keep_late: Whether the images of a canceled job are stored if they arrive after all.
        webhook_url: Where webhooks about this job are sent, an https URL. Default: `DARKROOM_WEBHOOK_URL`.
        webhook_events: The statuses that send a webhook. Default: `DARKROOM_WEBHOOK_EVENTS`, which are the final ones
            unless set.

    Returns:
        The queued job, or the first job that was enqueued with this idempotency key, as it is now.

    Raises:
        InvalidRequest: The request or an option is wrong; `errors` lists every fault, and nothing was written.
        IdempotencyConflict: The idempotency key was used for another request.
        RedisUnavailable: Redis did not answer. With an idempotency key, it is safe to call again.
        StorageError: The storage did not take an image.

    Examples:
        >>> from jobs.providers import deepmode
        >>> job = jobs.enqueue(
        ...     deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt="a lake at dawn", num_images=3),
        ...     idempotency_key="order-17",
        ...     metadata={"user": "42"},
        ... )
        >>> job.status
        <Status.QUEUED: 'queued'>
    """
    return current().enqueue(
        request,
        idempotency_key=idempotency_key,
        metadata=metadata,
        deadline_seconds=deadline_seconds,
        on_unknown=on_unknown,
        keep_late=keep_late,
        webhook_url=webhook_url,
        webhook_events=webhook_events,
    )


def enqueue_many(new_jobs: Sequence[NewJob], *, idempotency_key: str | None = None) -> tuple[Job, ...]:
    """Enqueue many requests, all or none, in one round trip to Redis.

    Args:
        new_jobs: The requests with their options; any operations, in any order.
        idempotency_key: 1 to 255 printable characters, for all of them together. The same key with the same requests
            returns the first jobs, for the longest of their deadlines plus `DARKROOM_RETENTION_SECONDS` from the enqueue,
            or until the record of the first is gone.

    Returns:
        The jobs, in the order of `new_jobs`.

    Raises:
        InvalidRequest: Some of them are wrong; `errors` lists every fault, its field below the index of the job, for
            example `2.image_urls.0`. Nothing was written.
        IdempotencyConflict: The idempotency key was used for other requests.
        RedisUnavailable: Redis did not answer. With an idempotency key, it is safe to call again.
        StorageError: The storage did not take an image.

    Examples:
        >>> from jobs.providers import deepmode
        >>> prompts = ["a lake at dawn", "a lake at dusk"]
        >>> batch = jobs.enqueue_many(
        ...     [jobs.NewJob(deepmode.Generate(model_id="b8a9f7e5d1c3a2f91e3d5", prompt=prompt)) for prompt in prompts],
        ...     idempotency_key="order-17",
        ... )
        >>> len(batch)
        2
    """
    return current().enqueue_many(new_jobs, idempotency_key=idempotency_key)


def get(job_id: str) -> Job:
    """Get a job as it is now, in one round trip to Redis.

    Args:
        job_id: The id of the job, 32 hexadecimal digits.

    Returns:
        The job. Its artifacts can be read with `Artifact.url` and `Artifact.read`.

    Raises:
        JobNotFound: No job has this id, or its retention is over.
        RedisUnavailable: Redis did not answer.

    Examples:
        >>> jobs.get(job.id).status
        <Status.QUEUED: 'queued'>
    """
    return current().get(job_id)


def wait(job_id: str, timeout: float | None = None) -> Job:
    """Wait until a job is final: succeeded, failed or canceled.

    Does not poll: Redis says when the job changes. However many threads wait, a process holds one connection for them.

    Args:
        job_id: The id of the job.
        timeout: The longest wait, in seconds. Default: as long as it takes.

    Returns:
        The final job. Look at `status`: a failed job is returned, not raised.

    Raises:
        TimeoutError: The job is not final after `timeout` seconds. It goes on; you can wait again.
        JobNotFound: No job has this id, or its retention is over.
        RedisUnavailable: Redis did not answer.

    Examples:
        >>> job = jobs.wait(job.id, timeout=120)
        >>> if job.status is jobs.Status.SUCCEEDED:
        ...     image = job.artifacts[0].read()
    """
    return current().wait(job_id, timeout)


def watch(job_id: str, timeout: float | None = None) -> Iterator[Job]:
    """Yield a job as it is now and at each change, until it is final.

    Changes that follow each other closely may be seen as one. The final job comes last.

    Args:
        job_id: The id of the job.
        timeout: The longest time until the job is final, in seconds. Default: as long as it takes.

    Yields:
        The job.

    Raises:
        TimeoutError: The job is not final after `timeout` seconds. It goes on.
        JobNotFound: No job has this id, or its retention is over.
        RedisUnavailable: Redis did not answer.

    Examples:
        >>> for job in jobs.watch(job.id, timeout=120):
        ...     print(job.status, len(job.artifacts), "of", job.images_expected)
        canceled 0 of 1
    """
    return current().watch(job_id, timeout)


def list(  # noqa: A001 - what users call is `jobs.list`
    status: str | Iterable[str] | None = None,
    *,
    operation: str | None = None,
    code: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
    created_after: datetime | None = None,
    unknown: bool = False,
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """List jobs, newest first. Every condition that is given must be met.

    `status` and `unknown` have an index each. The other conditions read the records, at most 10,000 a call: a page may then
    be short, or empty, although its cursor continues.

    Args:
        status: A status, or several of which any will do. Default: all.
        operation: Only jobs of this operation, for example `"deepmode.generate"`.
        code: Only jobs that failed with this code, for example `"moderated"`; see `Code`.
        metadata: Only jobs whose metadata has these values. A text also matches the number that it spells.
        created_after: Only jobs that were enqueued later than this, an aware `datetime`.
        unknown: Only jobs with an attempt whose outcome is unknown, so that it may have been charged.
        limit: The most jobs of the page, 1 to 1,000.
        cursor: `next_cursor` of the page before. Default: the first page.

    Returns:
        The page. `next_cursor` is None after the last one.

    Raises:
        InvalidRequest: A condition, the limit or the cursor is malformed.
        RedisUnavailable: Redis did not answer.

    Examples:
        >>> page = jobs.list(status="failed", metadata={"user": "42"})
        >>> while page.next_cursor:
        ...     page = jobs.list(status="failed", metadata={"user": "42"}, cursor=page.next_cursor)
    """
    return current().list(
        status,
        operation=operation,
        code=code,
        metadata=metadata,
        created_after=created_after,
        unknown=unknown,
        limit=limit,
        cursor=cursor,
    )


def cancel(job_id: str) -> Job:
    """Cancel a job that is queued, submitting or running.

    An attempt that was sent already may still be charged; its line on the ledger says so.

    Args:
        job_id: The id of the job.

    Returns:
        The job: canceled, or unchanged where it is too late, because it is storing or final.

    Raises:
        JobNotFound: No job has this id, or its retention is over.
        RedisUnavailable: Redis did not answer.

    Examples:
        >>> jobs.cancel(job.id).status
        <Status.CANCELED: 'canceled'>
    """
    return current().cancel(job_id)


def retry(job_id: str, *, may_charge_again: bool = False) -> Job:
    """Retry a job that failed or was canceled.

    Where only storing failed, the images are fetched again and nothing is submitted. Otherwise a new attempt is
    sent, with a new deadline.

    Args:
        job_id: The id of the job.
        may_charge_again: Accept that the provider may charge a second time. Needed only where an earlier attempt was
            charged or may have been.

    Returns:
        The job, queued or storing.

    Raises:
        NotPossible: The job is not failed or canceled.
        ChargePossible: An attempt was or may have been charged, and `may_charge_again` is false.
        JobNotFound: No job has this id, or its retention is over.
        RedisUnavailable: Redis did not answer.

    Examples:
        >>> jobs.retry(job.id).status
        <Status.QUEUED: 'queued'>
    """
    return current().retry(job_id, may_charge_again=may_charge_again)


def redeliver(job_id: str, delivery_id: str | None = None) -> Job:
    """Send webhooks of a job again, delivered or not.

    Args:
        job_id: The id of the job.
        delivery_id: The id of one of `job.deliveries`. Default: all of them.

    Returns:
        The job, its deliveries due now.

    Raises:
        NotPossible: The job has no such delivery.
        JobNotFound: No job has this id, or its retention is over.
        RedisUnavailable: Redis did not answer.

    Examples:
        >>> job = jobs.redeliver(job.id)
        >>> [delivery.event for delivery in job.deliveries]
        ['canceled']
    """
    return current().redeliver(job_id, delivery_id)
