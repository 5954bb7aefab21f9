"""`/v1/jobs`: enqueue, list and get jobs, and act on one of them."""

from __future__ import annotations

import re
import time
from http import HTTPStatus

from flask import Response, request, url_for

from jobs import ChargePossible, FieldError, InvalidRequest, Job, NotPossible, Status
from jobs.attempt import poll_seconds
from jobs.view import JobView

from ..problems import problem
from ..waiting import MAX_WAIT_SECONDS
from .access import api, caller, routes
from .models import CancelBody, JobPage, RedeliverBody, RetryBody, json_response, parse_query, validate
from .new_jobs import MAX_BYTES, created_status, fingerprint, idempotency_key, located_errors, parse_new_job

#: the largest body of an action on a job, in bytes
MAX_ACTION_BYTES = 64 << 10
#: an ETag expires after so many seconds though the job is unchanged, because the URLs of its artifacts expire after an hour
ETAG_SECONDS = 1800

_WAIT = re.compile(r"\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*", re.IGNORECASE)


@routes.post("/jobs")
def enqueue() -> Response:
    """Enqueue a job."""
    key = idempotency_key()
    new = parse_new_job(api().read_json(MAX_BYTES), api().darkroom)
    with located_errors([new]):
        job = api().darkroom.enqueue(
            **vars(new),
            idempotency_key=key or None,
            owner=caller().name,
            fingerprint=fingerprint([new]) if key else "",
        )
    response = job_response(job, created_status(job))
    response.headers["Location"] = url_for("api.get_job", job_id=job.id)
    return response


@routes.get("/jobs")
def list_jobs() -> Response:
    """List jobs: the caller's own, or all for an admin."""
    if repeated := [name for name, values in request.args.lists() if len(values) > 1]:
        raise InvalidRequest(*(FieldError(name, "should be given once") for name in repeated))
    query = parse_query(request.args.to_dict())
    page = api().darkroom.list(
        query.status,
        operation=query.operation,
        code=query.code,
        metadata=query.metadata,
        created_after=query.created_after,
        unknown=query.unknown == "true",
        owner="" if caller().is_admin else caller().name,
        limit=query.limit,
        cursor=query.cursor or None,
    )
    return json_response(JobPage(jobs=tuple(map(JobView.of, page.jobs)), next_cursor=page.next_cursor))


@routes.get("/jobs/<job_id>")
def get_job(job_id: str) -> Response:
    """Get a job, and wait for it first where the client prefers that."""
    seconds = preferred_wait()
    job, waited = wait_for_job(job_id, seconds or 0.0)
    response = job_response(job)
    response.headers["Vary"] = "Prefer, Authorization"
    if seconds is not None and waited:
        response.headers["Preference-Applied"] = f"wait={seconds:g}"
    return response


@routes.post("/jobs/<job_id>/cancel")
def cancel_job(job_id: str) -> Response:
    """Cancel a job."""
    validate(CancelBody, api().read_json(MAX_ACTION_BYTES, default={}))
    api().check_owner(job_id)
    job = api().darkroom.cancel(job_id)
    if job.status is Status.CANCELED:
        return job_response(job)
    if job.status.is_final:
        return conflict(job, "already_final", f"The job has already {job.status}.")
    return conflict(job, "too_late", "The images are rendered and are being stored; the job is about to end.")


@routes.post("/jobs/<job_id>/retry")
def retry_job(job_id: str) -> Response:
    """Retry a failed or canceled job."""
    body = validate(RetryBody, api().read_json(MAX_ACTION_BYTES, default={}))
    api().check_owner(job_id)
    try:
        job = api().darkroom.retry(job_id, may_charge_again=body.may_charge_again)
    except ChargePossible:
        detail = "A retry can be charged again. To accept that, send `may_charge_again`: true."
        return conflict(api().darkroom.get(job_id), "charge_possible", detail)
    except NotPossible as error:
        job = api().darkroom.get(job_id)
        return conflict(job, "succeeded" if job.status is Status.SUCCEEDED else "not_final", f"{error}.")
    return job_response(job, HTTPStatus.ACCEPTED)


@routes.post("/jobs/<job_id>/redeliver")
def redeliver_job(job_id: str) -> Response:
    """Send webhooks of a job again."""
    body = validate(RedeliverBody, api().read_json(MAX_ACTION_BYTES, default={}))
    api().check_owner(job_id)
    try:
        return job_response(api().darkroom.redeliver(job_id, body.delivery), HTTPStatus.ACCEPTED)
    except NotPossible as error:
        return conflict(api().darkroom.get(job_id), "no_such_delivery", f"{error}.")


def preferred_wait() -> float | None:
    """The seconds of `Prefer: wait=n` (RFC 7240), at most MAX_WAIT_SECONDS; None without a valid one."""
    for preference in request.headers.get("Prefer", "").split(","):
        if match := _WAIT.fullmatch(preference.partition(";")[0]):
            return min(float(match[1]), MAX_WAIT_SECONDS)
    return None


def wait_for_job(job_id: str, seconds: float) -> tuple[Job, bool]:
    """The job once it is final or the seconds are over, and whether the request was allowed to wait."""
    job = api().job(job_id)
    if job.status.is_final or not seconds:
        return job, True
    with api().waiting.wait() as allowed:
        if not allowed:
            return job, False
        try:
            return api().darkroom.wait(job_id, seconds), True
        except TimeoutError:
            return api().darkroom.get(job_id), True


def job_response(job: Job, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The job with its ETag and the time of the next poll, or 304 for a client that has it already."""
    # With artifacts the tag changes every half hour too, so that a cached job does not outlive the URLs in it.
    tag = f"{job.version}.{int(time.time() // ETAG_SECONDS)}" if job.artifacts else job.version
    headers = {"Cache-Control": "private, no-cache", "ETag": f'W/"{tag}"'} if tag else {}
    if not job.status.is_final:
        headers["Retry-After"] = str(round(poll_seconds((job.updated_at - job.created_at).total_seconds())))
    if request.method in ("GET", "HEAD") and request.if_none_match.contains_weak(tag):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    response = json_response(JobView.of(job), status)
    response.headers.update(headers)
    return response


def conflict(job: Job, reason: str, detail: str) -> Response:
    """The 409 for an action that the job's status does not allow."""
    return problem(HTTPStatus.CONFLICT, detail, reason=reason, job_status=job.status.value)
