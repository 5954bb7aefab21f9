"""The routes of `/v1` as the OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from jobs.view import JobView

from .api.models import (
    Batch,
    CancelBody,
    JobPage,
    JobQuery,
    OperationList,
    OperationView,
    RedeliverBody,
    RetryBody,
    Upload,
    new_batch_schema,
    new_job_schema,
)

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Answer:
    """One answer of a route."""

    status: int
    description: str
    #: None: an empty body, or a stream of events
    model: type[BaseModel] | None = None
    #: the names of its headers, besides those of the rate limit
    headers: Sequence[str] = ()
    media_type: str = JSON


@dataclass(frozen=True)
class Route:
    """One method of a path, an "operation" in OpenAPI's words."""

    method: str
    path: str
    #: its `operationId`
    id: str
    summary: str
    answers: Sequence[Answer]
    description: str = ""
    parameters: Sequence[Mapping[str, Any]] = ()
    #: the model of its query
    query: type[BaseModel] | None = None
    #: the model of its body, or a `requestBody` as OpenAPI writes it
    body: Any = None
    body_required: bool = True
    #: the statuses of its own errors, besides those that any route can answer
    errors: Sequence[int] = ()
    tag: str = "jobs"


#: the errors of a route that reads a body
BODY_ERRORS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


def _header(name: str, description: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": name, "in": "header", "description": description, "required": False, "schema": schema}


_JOB_ID = {
    "name": "job_id",
    "in": "path",
    "description": "The job's id.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "example": "0" * 32,
}
_OPERATION_NAME = {
    "name": "name",
    "in": "path",
    "description": "The operation's name.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[a-z0-9.-]+$"},
    "example": "deepmode.generate",
}
_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "The same key with the same body returns the first result; with another body it is refused with a 422.",
    {"type": "string", "format": "idempotency-key", "minLength": 1, "maxLength": 255},
)
_PREFER = _header(
    "Prefer",
    "`wait=30` delays the answer until the job is final, for 30 seconds at most. The longest wait is 60 seconds.",
    {"type": "string", "examples": ["wait=0"]},
)
_IF_NONE_MATCH = _header("If-None-Match", "An ETag: the answer is 304 if the job is unchanged.", {"type": "string"})
_LAST_EVENT_ID = _header(
    "Last-Event-ID",
    "The `id` of the last event that was received. The stream leaves out what the client knows.",
    {"type": "string"},
)
_IMAGE_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary", "description": "The image."}},
                "required": ["file"],
                "additionalProperties": False,
            },
            "encoding": {"file": {"contentType": "image/jpeg, image/png, image/webp, image/gif"}},
        }
    },
}

_JOB_HEADERS = ("ETag", "Retry-After")
_ACCEPTED = Answer(202, "The job, on which the action has begun.", JobView, _JOB_HEADERS)

ROUTES = (
    Route(
        "post",
        "/v1/jobs",
        "enqueue",
        "Enqueue a job",
        (
            Answer(202, "The job was accepted.", JobView, ("Location", "Retry-After")),
            Answer(
                200,
                "The job that was accepted before with this idempotency key.",
                JobView,
                ("Location", *_JOB_HEADERS),
            ),
        ),
        "An image field accepts an https URL, the reference of an upload, or base64.",
        (_IDEMPOTENCY_KEY,),
        body=new_job_schema(),
        errors=BODY_ERRORS,
    ),
    Route(
        "get",
        "/v1/jobs",
        "list",
        "List jobs",
        (Answer(200, "A page of jobs, newest first.", JobPage),),
        "A page can be short or even empty although `next_cursor` is set: follow the cursor until it is null.",
        query=JobQuery,
        errors=(HTTPStatus.UNPROCESSABLE_ENTITY,),
    ),
    Route(
        "get",
        "/v1/jobs/{job_id}",
        "get",
        "Get a job, or wait for it",
        (
            Answer(200, "The job.", JobView, (*_JOB_HEADERS, "Preference-Applied")),
            Answer(304, "The job is unchanged.", None, _JOB_HEADERS),
        ),
        parameters=(_JOB_ID, _PREFER, _IF_NONE_MATCH),
        errors=(HTTPStatus.NOT_FOUND,),
    ),
    Route(
        "get",
        "/v1/jobs/{job_id}/events",
        "follow",
        "Follow a job by server-sent events",
        (
            Answer(200, "Events named `job`, each with the job as its data.", None, (), EVENT_STREAM),
            Answer(204, "The job is final, and the client knows it."),
        ),
        "The stream begins with the job as it is now and ends when the job is final. If the connection breaks, reconnect "
        "with `Last-Event-ID`.",
        (_JOB_ID, _LAST_EVENT_ID),
        errors=(HTTPStatus.NOT_FOUND,),
    ),
    Route(
        "post",
        "/v1/jobs/{job_id}/cancel",
        "cancel",
        "Cancel a job",
        (Answer(200, "The canceled job.", JobView, _JOB_HEADERS),),
        "The `reason` of a 409 is `already_final`, or `too_late` when the images are being stored.",
        (_JOB_ID,),
        body=CancelBody,
        body_required=False,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, *BODY_ERRORS),
    ),
    Route(
        "post",
        "/v1/jobs/{job_id}/retry",
        "retry",
        "Retry a failed or canceled job",
        (_ACCEPTED,),
        "The `reason` of a 409 is `charge_possible` (send `may_charge_again` to accept it), `not_final` or `succeeded`.",
        (_JOB_ID,),
        body=RetryBody,
        body_required=False,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, *BODY_ERRORS),
    ),
    Route(
        "post",
        "/v1/jobs/{job_id}/redeliver",
        "redeliver",
        "Send webhooks of a job again",
        (_ACCEPTED,),
        "The `reason` of a 409 is `no_such_delivery`.",
        (_JOB_ID,),
        body=RedeliverBody,
        body_required=False,
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, *BODY_ERRORS),
    ),
    Route(
        "post",
        "/v1/batches",
        "enqueue_many",
        "Enqueue up to 1,000 jobs, all or none",
        (
            Answer(202, "All jobs were accepted.", Batch),
            Answer(200, "The jobs that were accepted before with this idempotency key.", Batch),
        ),
        parameters=(_IDEMPOTENCY_KEY,),
        body=new_batch_schema(),
        errors=BODY_ERRORS,
    ),
    Route(
        "get",
        "/v1/operations",
        "operations",
        "List operations",
        (Answer(200, "What can be rendered.", OperationList),),
        tag="operations",
    ),
    Route(
        "get",
        "/v1/operations/{name}",
        "operation",
        "Get an operation",
        (Answer(200, "The operation: its fields, price and an example.", OperationView),),
        parameters=(_OPERATION_NAME,),
        errors=(HTTPStatus.NOT_FOUND,),
        tag="operations",
    ),
    Route(
        "post",
        "/v1/uploads",
        "upload",
        "Upload an image for any image field",
        (Answer(201, "The image was stored.", Upload),),
        "A JPEG, PNG, WebP or GIF image, as the part `file` of a form.",
        body=_IMAGE_FORM,
        errors=BODY_ERRORS,
        tag="images",
    ),
)
