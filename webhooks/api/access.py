"""The blueprint of `/v1`, and what each of its requests passes: the API key, its rate limit, its scopes, its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import UnsupportedMediaType

from jobs import Job, JobNotFound
from jobs.darkroom import Darkroom
from jobs.state.api_keys import KeyStore, Scope
from jobs.state.rate_limit import RateLimit

from ..auth import ApiKeys, Caller, forbidden, unauthorized
from ..bodies import parse_json, read_body
from ..problems import problem, unavailable
from ..waiting import WaitingThreads

#: a body up to this size arrives with its head or soon after, in bytes; reading a larger one counts as waiting
SMALL_BYTES = 256 << 10
#: a client that may not wait should retry after so many seconds
RETRY_SECONDS = 2

#: everything below `/v1`
routes = Blueprint("api", __name__, url_prefix="/v1")


class TooManyWaiting(Exception):
    """As many threads wait as may; the others are for callbacks."""


@dataclass(frozen=True)
class Api:
    """What the views of one application work with."""

    darkroom: Darkroom
    keys: ApiKeys
    #: of each API key; None: no limit
    rate_limit: RateLimit | None
    waiting: WaitingThreads
    #: a stream of events ends after so many seconds; the client reconnects, and its key is checked again
    stream_seconds: float

    @classmethod
    def open(cls, darkroom: Darkroom, threads: int, stream_seconds: float, resources: ExitStack) -> Self:
        """The `Api` of a receiver with so many threads; `resources` will close its connections."""
        settings = darkroom.settings
        store = KeyStore.open(settings.redis_url)
        resources.callback(store.close)
        limit = RateLimit.open(settings.redis_url, settings.rate) if settings.rate else None
        if limit is not None:
            resources.callback(limit.close)
        keys = ApiKeys([key.get_secret_value() for key in settings.api_keys], store)
        return cls(darkroom, keys, limit, WaitingThreads(threads), stream_seconds)

    def job(self, job_id: str) -> Job:
        """Read a job of the caller. Raises JobNotFound, also for the job of another owner."""
        job = self.darkroom.get(job_id)
        if not caller().is_admin and job.owner != caller().name:
            raise JobNotFound(job.id)
        return job

    def check_owner(self, job_id: str) -> None:
        """Raise JobNotFound unless the caller may change the job. Costs no round trip for an admin."""
        if not caller().is_admin:
            self.job(job_id)

    def read_json(self, max_bytes: int, *, default: Any = None) -> Any:
        """Read the body as JSON; without a body return `default`, unless that is None.

        Raises BadRequest, UnsupportedMediaType, RequestEntityTooLarge, RequestTimeout or TooManyWaiting.
        """
        small = request.content_length is not None and request.content_length <= SMALL_BYTES
        with self.waiting.read() if small else self.waiting.wait() as allowed:
            if not allowed:
                raise TooManyWaiting
            body = read_body(request.environ, max_bytes)
        if not body and default is not None:
            return default
        if request.mimetype and request.mimetype != "application/json":
            raise UnsupportedMediaType
        return parse_json(body)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Let this thread wait during the block. Raises TooManyWaiting."""
        with self.waiting.wait() as allowed:
            if not allowed:
                raise TooManyWaiting
            yield


def api() -> Api:
    """The `Api` of this request's application."""
    found: Api = current_app.extensions["darkroom"]
    return found


def caller() -> Caller:
    """The holder of this request's API key."""
    found: Caller = g.caller
    return found


@routes.before_request
def admit() -> Response | None:
    """Refuse requests without a key, over the key's limit, or without the scope that they need."""
    authorization = request.headers.get("Authorization", "")
    found = api().keys.caller(authorization)
    if found is None:
        return unauthorized(key_given=bool(authorization))
    g.caller = found
    if limit := api().rate_limit:
        count = limit.count(found.key)
        # As in draft-ietf-httpapi-ratelimit-headers-10.
        g.limit_headers = {
            "RateLimit-Policy": f'"key";q={limit.requests};w={limit.seconds}',
            "RateLimit": f'"key";r={count.remaining};t={count.full_in_seconds}',
        }
        if count.wait_seconds:
            detail = f"Too many requests: this API key is limited to {limit.requests} in {limit.seconds} s."
            return problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(count.wait_seconds)})
    scope = Scope.JOBS_READ if request.method in ("GET", "HEAD") else Scope.JOBS_WRITE
    return None if found.allows(scope) else forbidden(scope)


@routes.after_request
def add_headers(response: Response) -> Response:
    """Add what is left of the rate limit, and keep answers out of shared caches."""
    response.headers.update(g.get("limit_headers", {}))
    response.headers.setdefault("Cache-Control", "private, no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@routes.errorhandler(TooManyWaiting)
def refuse_waiting(_: TooManyWaiting) -> Response:
    """Answer 503."""
    detail = "Too many requests are waiting at this process. Retry later, or without waiting."
    return unavailable(detail, seconds=RETRY_SECONDS)
