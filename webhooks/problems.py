"""Error responses: every error is a problem (RFC 9457, `application/problem+json`), also an unknown path or a failure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from jobs import DarkroomError, IdempotencyConflict, InvalidRequest, JobNotFound, NotPossible, Unavailable

CONTENT_TYPE = "application/problem+json"
#: a client should retry after so many seconds while Redis or the storage is away
RETRY_SECONDS = 5

#: at most so many invalid fields are listed
MAX_ERRORS = 100

#: the details of errors that the framework raises
_DETAILS = {
    HTTPStatus.BAD_REQUEST: "The body could not be parsed: it is not valid JSON, too deeply nested, too large, or a broken form.",
    HTTPStatus.REQUEST_TIMEOUT: "The body took too long to arrive.",
    HTTPStatus.NOT_FOUND: "There is nothing at this path.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path does not accept this method; see the Allow header.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The Content-Type is not supported: send application/json, and images as multipart/form-data.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "An internal error occurred; see the log of the receiver.",
}


def problem(status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """An error response. `detail` is a sentence for a person, without secrets; `members` are for programs."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **members}
    return Response(json.dumps(body), status, dict(headers or {}), content_type=CONTENT_TYPE)


def unavailable(detail: str, *, seconds: int = RETRY_SECONDS, **members: Any) -> Response:
    """The 503 that asks the client to retry after so many seconds."""
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(seconds)}, **members)


def add_error_handlers(app: Flask) -> None:
    """Answer every error of the application as a problem."""
    app.register_error_handler(
        HTTPException, lambda error: http_problem(error) if (error.code or 0) >= HTTPStatus.BAD_REQUEST else error
    )
    app.register_error_handler(DarkroomError, darkroom_problem)


def http_problem(error: HTTPException) -> Response:
    """The problem for an error of the framework."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    return problem(status, _DETAILS.get(status, f"{status.phrase}."), headers=headers)


def darkroom_problem(error: DarkroomError) -> Response:
    """The problem for one of Darkroom's own errors. Raises those that are a fault of ours."""
    match error:
        case InvalidRequest():
            errors = [{"field": one.field or "body", "message": one.message} for one in error.errors[:MAX_ERRORS]]
            detail = "; ".join(f"{one['field']}: {one['message']}" for one in errors)
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{detail}.", errors=errors)
        case IdempotencyConflict():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}.", job_id=error.job_id)
        case JobNotFound():
            return problem(HTTPStatus.NOT_FOUND, f"{error}.")
        case NotPossible():
            return problem(HTTPStatus.CONFLICT, f"{error}.")
        case Unavailable():
            return unavailable("Redis or the storage is unavailable; retry later.")
    raise error
