"""What all of `/v1` goes through: whose key it is, what the key allows, how often it may ask, and whose job it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import UnsupportedMediaType

from jobs import Job, JobNotFound
from jobs.darkroom import Darkroom
from jobs.state.api_keys import Scope
from jobs.state.rate_limit import RateLimit

from ..auth import ApiKeys, Caller, forbidden, unauthorized
from ..bodies import parse_json, read_body
from ..problems import problem, unavailable
from ..waiting import WaitingThreads
from .models import checked

#: a body of this size is there with its head, or soon after; a larger one is waited for like a job
SMALL_BYTES = 256 << 10
#: the largest body of an order about a job that exists
MAX_ORDER_BYTES = 64 << 10
#: how soon whoever found no free seat should come again
FULL_SECONDS = 2


@dataclass(frozen=True)
class Api:
    """What the routes of `/v1` work with."""

    darkroom: Darkroom
    keys: ApiKeys
    limit: RateLimit | None
    waiting: WaitingThreads
    #: a stream of events ends after so long; the client comes back with the last id, and its key is looked at again
    stream_seconds: float

    def job(self, job_id: str) -> Job:
        """A job of the caller's. Raises JobNotFound for another's too, in the same words."""
        return self.own(self.darkroom.get(job_id))

    def own(self, job: Job) -> Job:
        """The job, if the caller may see it. Raises JobNotFound."""
        if not caller().admin and job.owner != caller().name:
            raise JobNotFound(job.id)
        return job

    def to_change(self, job_id: str) -> str:
        """The id of a job that the caller may change; an admin's costs no look at the job. Raises JobNotFound."""
        return job_id if caller().admin else self.job(job_id).id

    def json(self, model: Any, limit: int, *, default: Any = None) -> Any:
        """The JSON body as a model. Raises BadRequest, UnsupportedMediaType, Full, or InvalidFields."""
        small = request.content_length is not None and request.content_length <= SMALL_BYTES
        with self.waiting.read() if small else self.waiting.wait() as seated:
            body = read_body(request.environ, limit) if seated else _refuse()
        if not body and default is not None:
            return default
        if request.mimetype and request.mimetype != "application/json":
            raise UnsupportedMediaType
        return checked(model, parse_json(body))

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A seat among those who wait. Raises Full."""
        with self.waiting.wait() as seated:
            if not seated:
                _refuse()
            yield


class Full(Exception):
    """Everybody who may wait does; the other threads are for callbacks."""


def _refuse() -> NoReturn:
    raise Full


def caller() -> Caller:
    """Whose key the request at hand holds."""
    found: Caller = g.caller
    return found


def guard(routes: Blueprint, api: Api) -> None:
    """Lets in who may come in."""

    @routes.before_request
    def admitted() -> Response | None:
        given = request.headers.get("Authorization", "")
        found = api.keys.caller(given)
        if found is None:
            return unauthorized(key_given=bool(given))
        g.caller = found
        return _limited(api.limit, found) or _scoped(found)

    @routes.after_request
    def told(response: Response) -> Response:
        response.headers.update(g.get("limit_headers", {}))
        response.headers.setdefault("Cache-Control", "private, no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    routes.register_error_handler(Full, _full)


def _limited(limit: RateLimit | None, found: Caller) -> Response | None:
    if limit is None:
        return None
    count = limit.count(found.key)
    # As in draft-ietf-httpapi-ratelimit-headers-10.
    g.limit_headers = {
        "RateLimit-Policy": f'"key";q={limit.requests};w={limit.seconds}',
        "RateLimit": f'"key";r={count.remaining};t={count.full_in_seconds}',
    }
    if not count.wait_seconds:
        return None
    detail = f"This API key may ask {limit.requests} times in {limit.seconds} s."
    return problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(count.wait_seconds)})


def _scoped(found: Caller) -> Response | None:
    scope = Scope.JOBS_READ if request.method in ("GET", "HEAD") else Scope.JOBS_WRITE
    return None if found.allows(scope) else forbidden(scope)


def _full(_: Full) -> Response:
    detail = "Everybody who may wait at this process does; come again, or ask without waiting."
    return unavailable(detail, seconds=FULL_SECONDS)
