"""`POST /webhooks/<provider>/<token>`: applies a provider's callback to its job before it is answered."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from flask import Response
from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import HTTPException

from jobs import JobNotFound, Unavailable, callback_url, logs, providers, transitions
from jobs.attempt import find_attempt
from jobs.darkroom import Darkroom
from jobs.errors import InvalidCallback, InvalidToken
from jobs.providers import InvalidProvider
from jobs.providers import _parsing as parsing
from jobs.providers import _redaction as redaction
from jobs.state.repository import Change
from jobs.storage.spool import Spool, SpoolFull

from .bodies import read_body
from .problems import http_problem, problem, unavailable
from .receiver import log_failure
from .spooled import CallbackSpool

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: the largest callback, in bytes
MAX_BYTES = 1 << 20
#: of a callback that cannot be understood, so many bytes are quoted on the job's timeline
MAX_QUOTED_BYTES = 4 << 10
#: the body of a 200
ACCEPTED = b'{"accepted":true}'

_HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(ACCEPTED)))]
#: a letter that is escaped in JSON
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


class Refused(Exception):
    """The callback is not accepted."""

    def __init__(self, response: Response, reason: str) -> None:
        super().__init__(reason)
        self.response = response


class CallbackHandler:
    """The WSGI application that is mounted at `/webhooks`. Thread-safe.

    It is not a Flask route, because callbacks come in bursts: this halves the cost of each.
    """

    def __init__(
        self, darkroom: Darkroom, options: Mapping[str, Any], secret_keys: tuple[str, ...], spool: CallbackSpool
    ) -> None:
        """`options` holds each provider's `Options` by name; `secret_keys` verify tokens; `spool` is used while Redis is away."""
        self._darkroom = darkroom
        self._options = options
        self._secret_keys = secret_keys
        self.spool = spool

    @classmethod
    def open(
        cls, darkroom: Darkroom, options: Mapping[str, Any], secret_keys: tuple[str, ...], resources: ExitStack
    ) -> Self:
        """The handler with a spool that is replayed from now on, for an earlier process may have left callbacks there.

        `resources` will end the replay.
        """
        folder = Spool(darkroom.settings.spool_dir / "callbacks", darkroom.settings.spool_max_bytes)
        spool = CallbackSpool(folder, partial(apply_callback, darkroom))
        resources.callback(spool.close)
        spool.start()
        return cls(darkroom, options, secret_keys, spool)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started, fields, refusal = time.perf_counter(), logs.Fields(outcome="refused"), None
        try:
            self._handle(environ, fields)
        except Refused as error:
            refusal, fields["reason"] = error.response, str(error)
        except HTTPException as error:  # the body is too large, or takes too long
            refusal, fields["reason"] = http_problem(error), error.name
        except Exception as error:  # noqa: BLE001 - as Flask does: any failure is logged and answered by a 500
            log_failure("POST /webhooks/<provider>/<token>", error)
            refusal, fields["outcome"] = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The callback failed."), "failed"
        fields["http_status"] = refusal.status_code if refusal else HTTPStatus.OK.value
        fields["duration_seconds"] = time.perf_counter() - started
        if refusal is not None:
            logs.event("callback refused", fields, level=logging.WARNING)
            return refusal(environ, start_response)
        logs.event("callback accepted", **fields)
        start_response("200 OK", _HEADERS)
        return [ACCEPTED]

    def _handle(self, environ: WSGIEnvironment, fields: logs.Fields) -> None:
        """Verify the callback, cheapest check first, and accept it; add what is known of it to the log's fields.

        Raises Refused, and the framework's 408 and 413.
        """
        match environ["PATH_INFO"].split("/"):
            case ["", str(provider), str(token)] if provider and token:
                pass
            case _:
                raise Refused(problem(HTTPStatus.NOT_FOUND, "There is nothing at this path."), "wrong path")
        if environ["REQUEST_METHOD"] != "POST":
            detail = "This path accepts POST only."
            answer = problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"Allow": "POST"})
            raise Refused(answer, "wrong method")
        if provider not in providers.sources():
            raise Refused(problem(HTTPStatus.NOT_FOUND, "There is no provider of this name."), "unknown provider")
        fields["provider"] = provider
        try:
            job_id, attempt = callback_url.verify(provider, token, self._secret_keys)
        except InvalidToken:
            raise _forbidden("invalid token") from None
        fields["job"], fields["attempt"] = job_id, attempt
        body = read_body(environ, MAX_BYTES)
        try:
            verify = providers.provider(provider).verify
        except InvalidProvider as error:
            answer = unavailable("The provider cannot be used at the moment; send the callback again.")
            raise Refused(answer, f"unusable provider: {error}") from None
        if verify:
            try:
                verify(self._options[provider], dict(EnvironHeaders(environ)), body, datetime.now(UTC))
            except InvalidCallback:
                raise _forbidden("invalid signature") from None
        self._accept(job_id, attempt, body, fields)

    def _accept(self, job_id: str, attempt: int, body: bytes, fields: logs.Fields) -> None:
        """Apply the callback, or write it to the disk while Redis is away. Raises Refused."""
        try:
            change = None if self.spool.redis_is_away else apply_callback(self._darkroom, job_id, attempt, body)
        except InvalidToken:
            raise _forbidden("no such attempt") from None
        except JobNotFound:
            raise Refused(problem(HTTPStatus.GONE, "The job of this callback was deleted."), "deleted job") from None
        except InvalidCallback as error:
            detail = f"The body is not a callback of this provider: {error}."
            raise Refused(problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail), "not understood") from None
        except Unavailable:
            change = None
        if change is not None:
            fields["outcome"] = "applied" if change.applied else "unchanged"
            fields["operation"], fields["status"] = change.after.operation, change.after.status
            return
        try:
            self.spool.write(job_id, attempt, body)
        except (SpoolFull, OSError) as error:
            answer = unavailable("The callback could not be stored; send it again.")
            raise Refused(answer, f"not stored: Redis is away, and the spool failed ({type(error).__name__})") from None
        fields["outcome"] = "spooled"


def _forbidden(reason: str) -> Refused:
    """The same answer for each reason, so that a caller does not learn which part was right."""
    return Refused(problem(HTTPStatus.FORBIDDEN, "The token or the signature is invalid."), reason)


def apply_callback(darkroom: Darkroom, job_id: str, attempt: int, body: bytes) -> Change:
    """Apply a callback to its job. One read and one write.

    Raises JobNotFound; InvalidToken when the job has no such attempt; InvalidCallback when the provider's file cannot
    read the body, whose beginning is then quoted on the job's timeline; Unavailable when Redis is away.
    """
    job = darkroom.repository.get(job_id)
    line = find_attempt(job.attempts, attempt)
    if line is None:
        raise InvalidToken("the job has no such attempt")
    try:
        try:
            value = parsing.parse_json(body)
        except ValueError:
            raise InvalidCallback("not JSON") from None
        report = redaction.without_prompts(providers.operation(line.operation).read_callback(value), job.params)
    except InvalidCallback as error:
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), body[:MAX_QUOTED_BYTES].decode(errors="replace"))
        quote = redaction.unquoted(redaction.redacted(text, MAX_QUOTED_BYTES), job.params)
        what = f"callback of {attempt} not understood: {quote}"
        darkroom.advance(job_id, lambda job, now: transitions.noted(job, what, now), known=job)
        raise InvalidCallback(str(error)) from None
    return darkroom.report(job_id, attempt, report, known=job)
