"""`/v1`: jobs over HTTP, for whoever holds an API key."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request, url_for

from jobs import ChargePossible, FieldError, InvalidRequest, Job, NotPossible, Status
from jobs.attempt import poll_seconds
from jobs.new_job import NewJob
from jobs.view import JobView

from ..problems import InvalidFields, Wrong, problem
from ..waiting import MAX_WAIT_SECONDS
from .access import MAX_ORDER_BYTES, Api, caller
from .models import (
    Batch,
    Cancel,
    JobPage,
    Redeliver,
    Retry,
    Search,
    checked,
    json_response,
    new_batch,
    new_job,
    wanted,
)

#: the largest body: requests with their images as base64
MAX_BYTES = 64 << 20
#: a job's ETag holds for so long although the job stands still: its artifacts' URLs live an hour
ETAG_SECONDS = 1800

_WAIT = re.compile(r"\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*", re.IGNORECASE)
#: a string of RFC 9651, or the bare text that many clients send
_KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"|([ !#-~][ -~]*)')


def add(routes: Blueprint, api: Api) -> None:
    """The routes of jobs and batches."""
    _add_new(routes, api)
    _add_reading(routes, api)
    _add_orders(routes, api)


# --- new jobs -------------------------------------------------------------------------------------------------------


def _add_new(routes: Blueprint, api: Api) -> None:
    @routes.post("/jobs")
    def enqueue() -> Response:
        key = idempotency_key()
        new = api.json(new_job(), MAX_BYTES)
        one = wanted(new)
        with _named(one):
            job = api.darkroom.enqueue(
                **vars(one), idempotency_key=key, owner=caller().name, fingerprint=_fingerprint(new) if key else ""
            )
        response = shown(job, _created(job))
        response.headers["Location"] = url_for("api.get", job_id=job.id)
        return response

    @routes.post("/batches")
    def enqueue_many() -> Response:
        key = idempotency_key()
        new = api.json(new_batch(), MAX_BYTES).jobs
        many = [wanted(one) for one in new]
        print_ = _fingerprint(*new) if key else ""
        with _named(*many, batch=True):
            jobs = api.darkroom.enqueue_many(many, idempotency_key=key, owner=caller().name, fingerprint=print_)
        return json_response(Batch(jobs=tuple(map(JobView.of, jobs))), _created(jobs[0]))


@contextmanager
def _named(*new_jobs: NewJob, batch: bool = False) -> Iterator[None]:
    """Names the fields that the domain refuses as the body has them."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidFields([_wrong(new_jobs, one, batch) for one in error.errors]) from None


def _wrong(new_jobs: Sequence[NewJob], error: FieldError, batch: bool) -> Wrong:
    index, _, field = error.field.partition(".") if batch else ("0", "", error.field)
    if not index.isdigit():  # a field of the batch itself
        return Wrong(error.field, error.message)
    inside = "params." if field.partition(".")[0] in type(new_jobs[int(index)].request).model_fields else ""
    return Wrong(f"jobs.{index}.{inside}{field}" if batch else f"{inside}{field}", error.message)


def _created(job: Job) -> HTTPStatus:
    # A job that was there before was read from Redis, so its record has a version.
    return HTTPStatus.OK if job.version else HTTPStatus.ACCEPTED


def _fingerprint(*new: Any) -> str:
    """What, besides operation and params, must be the same under the same idempotency key."""
    options = [one.root.model_dump(mode="json", exclude={"operation", "params"}) for one in new]
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def idempotency_key() -> str:
    """`Idempotency-Key`, a structured field's string or bare. Raises InvalidFields."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return ""
    match = _KEY.fullmatch(given.strip())
    key = (re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2]) if match else ""
    if not 1 <= len(key) <= 255:
        raise InvalidFields([Wrong("Idempotency-Key", "is not 1 to 255 printable ASCII characters, in quotes or bare")])
    return key


# --- reading --------------------------------------------------------------------------------------------------------


def _add_reading(routes: Blueprint, api: Api) -> None:
    @routes.get("/jobs")
    def find() -> Response:
        search = checked(Search, _query())
        page = api.darkroom.list(
            search.status,
            operation=search.operation,
            unknown=search.unknown,
            owner="" if caller().admin else caller().name,
            limit=search.limit,
            cursor=search.cursor or None,
        )
        return json_response(JobPage(jobs=tuple(map(JobView.of, page.jobs)), next_cursor=page.next_cursor))

    @routes.get("/jobs/<job_id>")
    def get(job_id: str) -> Response:
        asked = _wait_asked()
        job, waited = _awaited(api, job_id, asked or 0.0)
        response = shown(job)
        response.headers["Vary"] = "Prefer, Authorization"
        if asked is not None and waited:
            response.headers["Preference-Applied"] = f"wait={asked:g}"
        return response


def _query() -> Mapping[str, str]:
    """The query's parameters. Raises InvalidFields for one that is given twice."""
    if twice := [name for name, values in request.args.lists() if len(values) > 1]:
        raise InvalidFields([Wrong(name, "is given more than once") for name in twice])
    return request.args.to_dict()


def _awaited(api: Api, job_id: str, seconds: float) -> tuple[Job, bool]:
    """The job, held until it is final for so many seconds at most, and whether that was done: seats are few."""
    job = api.job(job_id)
    if job.status.final or not seconds:
        return job, True
    with api.waiting.wait() as seated:
        if not seated:
            return job, False
        try:
            return api.darkroom.wait(job_id, seconds), True
        except TimeoutError:
            return api.darkroom.get(job_id), True


def shown(job: Job, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A job as an answer: its ETag, when to ask again, and 304 for whoever has it already."""
    tag = _tag(job)
    headers = {"Cache-Control": "private, no-cache", "ETag": f'W/"{tag}"'} if tag else {}
    if not job.status.final:
        headers["Retry-After"] = str(_ask_again_seconds(job))
    if request.method in ("GET", "HEAD") and request.if_none_match.contains_weak(tag):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    response = json_response(JobView.of(job), status)
    response.headers.update(headers)
    return response


def _tag(job: Job) -> str:
    """The record's version; with artifacts also the half hour, so that a copy never outlives the URLs in it."""
    return f"{job.version}.{int(time.time() // ETAG_SECONDS)}" if job.artifacts else job.version


def _ask_again_seconds(job: Job) -> int:
    return round(poll_seconds((job.updated_at - job.created_at).total_seconds()))


def _wait_asked() -> float | None:
    """The seconds of `Prefer: wait=n` (RFC 7240), at most a minute; None without a readable one."""
    for preference in request.headers.get("Prefer", "").split(","):
        if match := _WAIT.fullmatch(preference.partition(";")[0]):
            return min(float(match[1]), MAX_WAIT_SECONDS)
    return None


# --- orders ---------------------------------------------------------------------------------------------------------


def _add_orders(routes: Blueprint, api: Api) -> None:
    @routes.post("/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Response:
        api.json(Cancel, MAX_ORDER_BYTES, default=Cancel())
        job = api.darkroom.cancel(api.to_change(job_id))
        if job.status is Status.CANCELED:
            return shown(job)
        reason = "already_final" if job.status.final else "too_late"
        return _refused(job, reason, _UNCANCELED[reason])

    @routes.post("/jobs/<job_id>/retry")
    def retry(job_id: str) -> Response:
        order = api.json(Retry, MAX_ORDER_BYTES, default=Retry())
        job_id = api.to_change(job_id)
        try:
            job = api.darkroom.retry(job_id, may_charge_again=order.may_charge_again)
        except ChargePossible as error:
            return _refused(api.darkroom.get(job_id), "charge_possible", str(error))
        except NotPossible as error:
            job = api.darkroom.get(job_id)
            return _refused(job, "succeeded" if job.status is Status.SUCCEEDED else "not_final", str(error))
        return shown(job, HTTPStatus.ACCEPTED)

    @routes.post("/jobs/<job_id>/redeliver")
    def redeliver(job_id: str) -> Response:
        order = api.json(Redeliver, MAX_ORDER_BYTES, default=Redeliver())
        job_id = api.to_change(job_id)
        try:
            return shown(api.darkroom.redeliver(job_id, order.delivery), HTTPStatus.ACCEPTED)
        except NotPossible as error:
            return _refused(api.darkroom.get(job_id), "no_such_delivery", str(error))


_UNCANCELED = {
    "already_final": "The job had ended before.",
    "too_late": "The pictures are rendered and being stored: the job ends on its own in a moment.",
}


def _refused(job: Job, reason: str, detail: str) -> Response:
    return problem(HTTPStatus.CONFLICT, detail, reason=reason, job_status=job.status.value)
