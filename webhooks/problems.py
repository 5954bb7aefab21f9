"""Every error of the HTTP edge as a problem (RFC 9457, `application/problem+json`), the 404 and 500 pages included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from jobs import DarkroomError, IdempotencyConflict, InvalidRequest, JobNotFound, NotPossible, Unavailable

CONTENT_TYPE = "application/problem+json"
#: how long a client should wait while Redis or the storage is away
RETRY_SECONDS = 5

#: what a person reads where the framework, and not our own code, refused
_SENTENCES = {
    HTTPStatus.BAD_REQUEST: "The request could not be read: its body is no JSON, is nested too deeply or holds too much, or its form is broken.",
    HTTPStatus.REQUEST_TIMEOUT: "The body took too long to come.",
    HTTPStatus.NOT_FOUND: "Nothing is served at this path.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take this method; the Allow header names those it takes.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than this path takes.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Send JSON, with `Content-Type: application/json`.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something failed on our side; it is in our log.",
}


def problem(status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """A problem: `detail` is a sentence for a person without secrets, `members` are for programs."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **members}
    return Response(json.dumps(body), status, dict(headers or {}), content_type=CONTENT_TYPE)


@dataclass(frozen=True)
class Wrong:
    """One field that is wrong: its path, and what is wrong with it, without its value where that may be private."""

    field: str
    message: str


class InvalidFields(Exception):
    """What was sent is wrong; nothing was written."""

    def __init__(self, wrong: Sequence[Wrong]) -> None:
        super().__init__("; ".join(f"{one.field}: {one.message}" for one in wrong))
        self.wrong = tuple(wrong)


def add_error_handlers(app: Flask) -> None:
    """Answer every error of the application as a problem."""
    app.register_error_handler(
        HTTPException, lambda error: http_problem(error) if (error.code or 0) >= HTTPStatus.BAD_REQUEST else error
    )
    app.register_error_handler(DarkroomError, _explained)
    app.register_error_handler(InvalidFields, _corrected)


def http_problem(error: HTTPException) -> Response:
    """The problem for an error of the framework."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    return problem(status, _SENTENCES.get(status, f"{status.phrase}."), headers=headers)


def _corrected(error: InvalidFields) -> Response:
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}.", errors=[asdict(one) for one in error.wrong])


def _explained(error: DarkroomError) -> Response:
    match error:
        case JobNotFound():
            return problem(HTTPStatus.NOT_FOUND, str(error))
        case InvalidRequest():
            return _corrected(InvalidFields([Wrong(one.field, one.message) for one in error.errors]))
        case IdempotencyConflict():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), job_id=error.job_id)
        case NotPossible():
            return problem(HTTPStatus.CONFLICT, str(error))
        case Unavailable():
            return unavailable("Redis or the storage is away; try again.")
    raise error


def unavailable(detail: str, *, seconds: int = RETRY_SECONDS, **members: Any) -> Response:
    """The 503 that asks to come again."""
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(seconds)}, **members)
