"""`POST /webhooks/<provider>/<token>`: a provider's callback becomes a report, and is in Redis before it is answered."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from flask import Blueprint, Flask, Response, request
from werkzeug.datastructures import EnvironHeaders

from jobs import Job, JobNotFound, Unavailable, callback_url, providers
from jobs.darkroom import Darkroom
from jobs.errors import InvalidCallback, InvalidToken
from jobs.providers import _parsing as parsing
from jobs.providers import _redaction as redaction
from jobs.storage.spool import Spool, SpoolFull

from .bodies import read_body
from .problems import problem, unavailable
from .spooled import SpooledCallbacks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_log = logging.getLogger("darkroom.webhooks")

#: the largest callback that is read
MAX_BYTES = 1 << 20
#: how much of a body that nobody understands is kept on the job's timeline
KEPT_BYTES = 4 << 10

#: how JSON may write a letter
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")

#: the body of a 200
KEPT = b'{"kept":true}'
#: the body of a 200 while Redis is away
SPOOLED = b'{"kept":"on disk, until Redis is back"}'
_KEPT_HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(KEPT)))]


@dataclass(frozen=True)
class Receiver:
    """Reads callbacks for one set of settings. Thread-safe."""

    darkroom: Darkroom
    #: each provider's own `Options`, by name
    options: Mapping[str, Any]
    keys: tuple[str, ...]
    #: where callbacks wait while Redis is away
    spooled: SpooledCallbacks

    @classmethod
    def of(cls, darkroom: Darkroom, options: Mapping[str, Any], keys: tuple[str, ...]) -> Self:
        """The receiver, whose spool is replayed from now on: an earlier process may have left something."""
        settings = darkroom.settings
        spool = Spool(settings.spool_dir / "callbacks", settings.spool_max_bytes)
        spooled = SpooledCallbacks(spool, lambda job_id, number, body: keep(darkroom, job_id, number, body))
        spooled.start()
        return cls(darkroom, options, keys, spooled)

    def token(self, provider: str, token: str) -> tuple[str, int]:
        """The job and the attempt that a token names. Raises InvalidToken."""
        return callback_url.verify(provider, token, self.keys)

    def signed(self, provider: str, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Checks the vendor's own signature, where a secret is configured. Raises InvalidCallback."""
        if verify := providers.provider(provider).verify:
            verify(self.options[provider], dict(headers), body, datetime.now(UTC))

    def receive(self, job_id: str, number: int, body: bytes) -> bool:
        """Keeps a callback: in Redis, or while that is away on the disk; False says the latter.

        Raises what `keep` does, Unavailable only when the disk would not have it either.
        """
        if self.spooled.away:
            return self._spool(job_id, number, body)
        try:
            keep(self.darkroom, job_id, number, body)
        except Unavailable:
            return self._spool(job_id, number, body)
        return True

    def _spool(self, job_id: str, number: int, body: bytes) -> bool:
        try:
            self.spooled.keep(job_id, number, body)
        except (SpoolFull, OSError) as error:
            raise Unavailable(f"Redis is away, and the spool: {error}") from error
        return False


def keep(darkroom: Darkroom, job_id: str, number: int, body: bytes) -> None:
    """Keeps in Redis what a callback says: one read, one write.

    Raises JobNotFound, InvalidToken for an attempt the job never made, InvalidCallback (its beginning is kept on the
    timeline) and Unavailable when it could not be kept.
    """
    job = darkroom.repository.get(job_id)
    if number > len(job.attempts):
        raise InvalidToken("the job made no such attempt")
    try:
        report = providers.operation(job.attempts[number - 1].operation).read_callback(_parsed(body))
    except InvalidCallback as error:
        darkroom.advance(job_id, _noting(f"callback of {number} not understood: {_excerpt(body, job)}"), known=job)
        raise InvalidCallback(str(error)) from None
    darkroom.report(job_id, number, report, known=job)


def _parsed(body: bytes) -> Any:
    try:
        return parsing.parsed(body)
    except ValueError:
        raise InvalidCallback("not JSON") from None


def _noting(what: str) -> Callable[[Job, datetime], Job]:
    return lambda job, now: job.noted(what, now)


def _excerpt(body: bytes, job: Job) -> str:
    """The beginning of a body that nobody understood, without what is secret in it."""
    said = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), body[:KEPT_BYTES].decode(errors="replace"))
    return redaction.unquoted(redaction.redacted(said, KEPT_BYTES), job.params)


def blueprint(receiver: Receiver) -> Blueprint:
    """The route."""
    routes = Blueprint("callbacks", __name__)

    @routes.post("/webhooks/<provider>/<token>")
    def callback(provider: str, token: str) -> Response:
        return answered(receiver, provider, token, request.environ) or Response(KEPT, headers=_KEPT_HEADERS)

    return routes


def answered(receiver: Receiver, provider: str, token: str, environ: WSGIEnvironment) -> Response | None:
    """None when the callback is kept, or the refusal; the cheapest check comes first. Needs no context of Flask's."""
    if provider not in providers.names():
        return problem(HTTPStatus.NOT_FOUND, "No provider has this name.")
    try:
        job_id, number = receiver.token(provider, token)
        body = read_body(environ, MAX_BYTES)
        receiver.signed(provider, EnvironHeaders(environ), body)
    except (InvalidToken, InvalidCallback):
        return _forbidden()
    return _answer(receiver, job_id, number, body)


def _answer(receiver: Receiver, job_id: str, number: int, body: bytes) -> Response | None:
    try:
        if not receiver.receive(job_id, number, body):
            return Response(SPOOLED, content_type="application/json")
    except InvalidToken:
        return _forbidden()
    except JobNotFound:
        return problem(HTTPStatus.GONE, "The job of this callback is forgotten.")
    except InvalidCallback as error:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"The body is not of the provider's shape: {error}.")
    except Unavailable as error:
        _log.warning("callback of job %s could not be kept: %s", job_id, error)
        return unavailable("The callback could not be kept; send it again.")
    return None


def _forbidden() -> Response:
    """One answer for whatever is wrong, so that nobody learns which part was right."""
    return problem(HTTPStatus.FORBIDDEN, "The token or the signature is not ours.")


class ShortCut:
    """A WSGI application that answers callbacks before the framework wakes up: the same function at half the cost.

    Whatever is no plain POST of a callback, and every fault, is the framework's, whose route says the same.
    """

    def __init__(self, app: Flask, receiver: Receiver) -> None:
        self._app = app
        self._otherwise = app.wsgi_app
        self._receiver = receiver

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].split("/")
        if environ["REQUEST_METHOD"] != "POST" or len(path) != 4 or path[1] != "webhooks" or not all(path[2:]):
            return self._otherwise(environ, start_response)
        try:
            response = answered(self._receiver, path[2], path[3], environ)
        except Exception as error:  # noqa: BLE001 - the framework logs it and makes the page
            response = self._faulty(error, environ)
        if response is not None:
            return response(environ, start_response)
        start_response("200 OK", _KEPT_HEADERS)
        return [KEPT]

    def _faulty(self, error: Exception, environ: WSGIEnvironment) -> Response:
        with self._app.request_context(environ):
            try:
                return self._app.make_response(self._app.handle_user_exception(error))
            except Exception as unexpected:  # noqa: BLE001 - as above
                return self._app.handle_exception(unexpected)
