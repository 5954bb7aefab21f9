"""`/v1`: jobs over HTTP, for whoever holds an API key."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from http import HTTPStatus

from flask import Blueprint, Response, g, jsonify, request, url_for

from jobs import Job, Status
from jobs.job import poll_seconds
from jobs.lifecycle import Darkroom
from jobs.view import view

from .auth import Keys, unauthorized
from .bodies import read_body
from .models import MAX_BYTES, NewJob, Search, accepted, found, read_model, read_query
from .problems import problem
from .waiting import MAX_WAIT_SECONDS, Hub, Waiters

#: a job's ETag holds for so long although the job stands still: its artifacts' URLs live an hour
ETAG_SECONDS = 1800

_WAIT = re.compile(r"\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Api:
    """What the routes of `/v1` work with."""

    darkroom: Darkroom
    keys: Keys
    waiters: Waiters
    hub: Hub

    def awaited(self, job_id: str, seconds: float) -> tuple[Job, bool]:
        """The job, held until it is final for so many seconds at most, and whether that was done: seats are few."""
        job = self.darkroom.get(job_id)
        if job.status.final or not seconds:
            return job, True
        with self.waiters.seat() as seated:
            if seated:
                job = self.hub.wait(job_id, lambda: self.darkroom.get(job_id), seconds)
            return job, seated


def blueprint(api: Api) -> Blueprint:
    """The routes."""
    routes = Blueprint("api", __name__, url_prefix="/v1")

    @routes.before_request
    def authorized() -> Response | None:
        given = request.headers.get("Authorization", "")
        g.owner = api.keys.owner(given)
        return unauthorized(given=bool(given)) if g.owner is None else None

    @routes.post("/jobs")
    def enqueue() -> Response:
        job = accepted(api.darkroom, read_model(NewJob, read_body(request.environ, MAX_BYTES)), owner=g.owner)
        # A job that was there before was read from Redis, so its record has a version.
        response = shown(job, HTTPStatus.OK if job.version else HTTPStatus.ACCEPTED)
        response.headers["Location"] = url_for("api.get", job_id=job.id)
        return response

    @routes.get("/jobs")
    def find() -> Response:
        page = found(api.darkroom, read_query(Search))
        answer = {"jobs": [view(job) for job in page.jobs], "next_cursor": page.cursor}
        response = jsonify(answer)
        response.headers["Cache-Control"] = "private, no-store"
        return response

    @routes.get("/jobs/<job_id>")
    def get(job_id: str) -> Response:
        asked = _wait_asked()
        job, waited = api.awaited(job_id, asked or 0.0)
        response = shown(job)
        response.headers["Vary"] = "Prefer"
        if asked is not None and waited:
            response.headers["Preference-Applied"] = f"wait={asked:g}"
        return response

    @routes.post("/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Response:
        job = api.darkroom.cancel(job_id)
        if job.status is Status.CANCELED:
            return shown(job)
        reason = "already_final" if job.status.final else "too_late"
        return problem(HTTPStatus.CONFLICT, _UNCANCELED[reason], reason=reason, job_status=job.status.value)

    return routes


_UNCANCELED = {
    "already_final": "The job had ended before.",
    "too_late": "The pictures are rendered and being stored: the job ends on its own in a moment.",
}


def shown(job: Job, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A job as an answer: its ETag, when to ask again, and 304 for whoever has it already."""
    tag = _tag(job)
    headers = {"Cache-Control": "private, no-cache", "ETag": f'W/"{tag}"'} if tag else {}
    if not job.status.final:
        headers["Retry-After"] = str(_ask_again_seconds(job))
    if request.method in ("GET", "HEAD") and request.if_none_match.contains_weak(tag):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    response = jsonify(view(job))
    response.status_code = status
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
