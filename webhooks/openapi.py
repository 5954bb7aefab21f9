"""The OpenAPI 3.1 document of `/v1`, made from the models that check what comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from jobs import providers
from jobs.state.api_keys import Scope
from jobs.view import JobView

from .api.models import Batch, Cancel, JobPage, Problem, Redeliver, Retry, Search, Upload, examples, new_batch, new_job

_JSON, _PROBLEM = "application/json", "application/problem+json"

#: an example that names no job of anybody
_NO_JOB = "0" * 32

_ERRORS: Mapping[int, str] = {
    400: "The request could not be read.",
    401: "No API key, or none of ours.",
    403: "The API key lacks the scope that is named.",
    404: "No such job, its retention is over, or it is another key's.",
    408: "The body took too long to come.",
    409: "The job's status does not allow it; `reason` says why.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    422: "Fields are wrong, each named in `errors`; or the idempotency key was used for something else.",
    429: "The API key asked too often.",
    500: "Something failed on our side.",
    503: "Redis or the storage is away, or everybody who may wait already does.",
}
_ALWAYS = (401, 403, 429, 500, 503)
_WITH_BODY = (400, 408, 413, 415, 422)

_HEADERS: Mapping[str, Any] = {
    "Location": ("Where the job can be followed.", {"type": "string"}),
    "ETag": ("The record's version, for If-None-Match.", {"type": "string"}),
    "Retry-After": ("Seconds until it is worth asking again.", {"type": "integer", "minimum": 0}),
    "Preference-Applied": ("The wait that was granted.", {"type": "string"}),
    "RateLimit": ("What is left of the limit, where there is one.", {"type": "string"}),
    "RateLimit-Policy": ("The limit, where there is one.", {"type": "string"}),
    "WWW-Authenticate": ("What is wanted.", {"type": "string"}),
}


@dataclass(frozen=True)
class Answer:
    """One answer: what it means, its model, its headers."""

    status: int
    text: str
    model: type[BaseModel] | None = None
    headers: Sequence[str] = ()
    media_type: str = _JSON


@dataclass(frozen=True)
class Route:
    """One operation of the document."""

    method: str
    path: str
    id: str
    summary: str
    answers: Sequence[Answer]
    description: str = ""
    parameters: Sequence[Any] = ()
    body: Any = None
    body_required: bool = True
    errors: Sequence[int] = ()
    tag: str = "jobs"


def _header(name: str, text: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": name, "in": "header", "description": text, "required": False, "schema": schema}


_ID = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "example": _NO_JOB,
}
_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "The same key with the same body returns what the first one made; with another body it is refused (422).",
    {"type": "string", "format": "idempotency-key", "minLength": 1, "maxLength": 255},
)
_PREFER = _header(
    "Prefer",
    "`wait=30` holds the answer until the job is final, at most so many seconds (60).",
    {"type": "string", "examples": ["wait=0"]},
)
_IF_NONE_MATCH = _header("If-None-Match", "An ETag: 304 when the job is still that.", {"type": "string"})
_LAST_EVENT_ID = _header(
    "Last-Event-ID", "The `id` of the last event that was seen: what is known is not sent again.", {"type": "string"}
)

_JOB_HEADERS = ("ETag", "Retry-After")
_ORDERED = Answer(202, "The job, with what was ordered under way.", JobView, _JOB_HEADERS)


def _routes() -> Sequence[Route]:
    return (
        Route(
            "post",
            "/v1/jobs",
            "enqueue",
            "Enqueue a job",
            (
                Answer(202, "Accepted.", JobView, ("Location", "Retry-After")),
                Answer(200, "Accepted before under this idempotency key.", JobView, ("Location", *_JOB_HEADERS)),
            ),
            "An image field takes an https URL, the reference of an upload, or base64.",
            (_IDEMPOTENCY_KEY,),
            new_job(),
            errors=_WITH_BODY,
        ),
        Route(
            "get",
            "/v1/jobs",
            "list",
            "List jobs",
            (Answer(200, "A page, the latest first.", JobPage),),
            "A page may be short, or empty, although `next_cursor` leads on.",
            _query(Search),
            errors=(422,),
        ),
        Route(
            "get",
            "/v1/jobs/{job_id}",
            "get",
            "Get a job, or wait for it",
            (
                Answer(200, "The job.", JobView, (*_JOB_HEADERS, "Preference-Applied")),
                Answer(304, "It is what you have.", None, _JOB_HEADERS),
            ),
            parameters=(_ID, _PREFER, _IF_NONE_MATCH),
            errors=(404,),
        ),
        Route(
            "get",
            "/v1/jobs/{job_id}/events",
            "follow",
            "Follow a job by server-sent events",
            (
                Answer(200, "Events named `job`, each with the job as data.", None, (), "text/event-stream"),
                Answer(204, "It is final, and you know that."),
            ),
            "The stream begins with the job as it stands and ends when it is final. When it breaks, come back with "
            "`Last-Event-ID`.",
            (_ID, _LAST_EVENT_ID),
            errors=(404,),
        ),
        Route(
            "post",
            "/v1/jobs/{job_id}/cancel",
            "cancel",
            "Cancel a job that waits for a provider",
            (Answer(200, "It is canceled.", JobView, _JOB_HEADERS),),
            "`reason` of a 409: `already_final`, or `too_late`: its pictures are being stored.",
            (_ID,),
            Cancel,
            body_required=False,
            errors=(404, 409, *_WITH_BODY),
        ),
        Route(
            "post",
            "/v1/jobs/{job_id}/retry",
            "retry",
            "Try a failed or canceled job again",
            (_ORDERED,),
            "`reason` of a 409: `charge_possible` (send `may_charge_again` to accept that), `not_final` or `succeeded`.",
            (_ID,),
            Retry,
            body_required=False,
            errors=(404, 409, *_WITH_BODY),
        ),
        Route(
            "post",
            "/v1/jobs/{job_id}/redeliver",
            "redeliver",
            "Send webhooks of a job again",
            (_ORDERED,),
            "`reason` of a 409: `no_such_delivery`.",
            (_ID,),
            Redeliver,
            body_required=False,
            errors=(404, 409, *_WITH_BODY),
        ),
        Route(
            "post",
            "/v1/batches",
            "enqueue_many",
            "Enqueue up to 1,000 jobs, all or none",
            (
                Answer(202, "All are accepted.", Batch),
                Answer(200, "All were accepted before under this idempotency key.", Batch),
            ),
            parameters=(_IDEMPOTENCY_KEY,),
            body=new_batch(),
            errors=_WITH_BODY,
        ),
        Route(
            "post",
            "/v1/uploads",
            "upload",
            "Upload an image for any image field",
            (Answer(201, "It is kept under its SHA-256.", Upload),),
            "JPEG, PNG, WebP or GIF, as the part `file` of a form.",
            body=_FORM,
            errors=_WITH_BODY,
            tag="images",
        ),
    )


_FORM = {
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


def document() -> dict[str, Any]:
    """The whole document."""
    models = _Models(_routes())
    paths: dict[str, dict[str, Any]] = {}
    for route in _routes():
        paths.setdefault(route.path, {})[route.method] = _operation(route, models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": version("darkroom"),
            "description": "Image jobs that are charged once and stored once. Errors are problem+json (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": "jobs"}, {"name": "images"}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, with its scopes."}
            },
            "schemas": models.schemas,
            "responses": {str(status): _error(status, text) for status, text in _ERRORS.items()},
        },
    }


class _Schema(GenerateJsonSchema):
    """Leaves the suffix of `JobView` and its parts out of the document."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name).removesuffix("View")


class _Models:
    """The schemas of all models, and references to them."""

    def __init__(self, routes: Sequence[Route]) -> None:
        taken = {route.body for route in routes if isinstance(route.body, type)}
        told = {answer.model for route in routes for answer in route.answers if answer.model}
        wanted: list[Any] = [(model, "validation") for model in taken]
        wanted += [(model, "serialization") for model in (*told, Problem)]
        wanted.sort(key=lambda pair: pair[0].__name__)
        refs, definitions = models_json_schema(
            wanted, schema_generator=_Schema, ref_template="#/components/schemas/{model}"
        )
        self._refs = {model: schema for (model, _), schema in refs.items()}
        self.schemas = definitions["$defs"]

    def ref(self, model: type[BaseModel]) -> Mapping[str, Any]:
        return self._refs[model]


def _operation(route: Route, models: _Models) -> dict[str, Any]:
    scope = Scope.JOBS_READ if route.method == "get" else Scope.JOBS_WRITE
    errors = sorted({*_ALWAYS, *route.errors})
    found: dict[str, Any] = {
        "operationId": route.id,
        "summary": route.summary,
        "description": " ".join(filter(None, (route.description, f"Scope: `{scope}`."))),
        "tags": [route.tag],
        "security": [{"key": [scope.value]}],
        "parameters": list(route.parameters),
        "responses": {
            **{str(answer.status): _answer(answer, models) for answer in route.answers},
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in errors},
        },
    }
    if route.body is not None:
        found["requestBody"] = route.body if isinstance(route.body, dict) else _body(route, models)
    return found


def _body(route: Route, models: _Models) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": models.ref(route.body)}
    if shown := _examples(route.body):
        content["examples"] = shown
    return {"required": route.body_required, "content": {_JSON: content}}


def _examples(model: type[BaseModel]) -> dict[str, Any]:
    """An example of each operation, as its provider's file has it; they run."""
    jobs = [
        {"operation": name, "params": example, "metadata": {"user": "42"}}
        for name in providers.operation_names()
        for example in examples(name)
    ]
    if model is new_job():
        return {job["operation"]: {"value": job} for job in jobs}
    return {"two": {"value": {"jobs": jobs[:2]}}} if model is new_batch() else {}


def _query(model: type[BaseModel]) -> Sequence[Any]:
    schemas = model.model_json_schema()["properties"]
    return tuple(_parameter(name, dict(schema)) for name, schema in schemas.items())


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    text = schema.pop("description", "")
    schema.pop("title", None)
    if any(option == {"type": "null"} for option in schema.get("anyOf", ())):
        # A parameter that is not sent is the null of a query.
        schema = next(option for option in schema["anyOf"] if option != {"type": "null"})
    if schema.get("default", "") in (None, []):
        schema.pop("default")
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


#: one event; OpenAPI 3.1 has no word for a stream of them
_SERVER_SENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "For Last-Event-ID."},
        "event": {"const": "job"},
        "data": {
            "type": "string",
            "contentMediaType": _JSON,
            "contentSchema": {"$ref": "#/components/schemas/Job"},
        },
    },
    "required": ["id", "event", "data"],
}


def _answer(answer: Answer, models: _Models) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.text, "headers": _headers(*answer.headers, *_LIMIT_HEADERS)}
    if answer.model:
        found["content"] = {answer.media_type: {"schema": models.ref(answer.model)}}
    elif answer.media_type != _JSON:
        found["content"] = {answer.media_type: {"schema": _SERVER_SENT}}
    return found


_LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")


def _error(status: int, text: str) -> dict[str, Any]:
    headers = {401: ("WWW-Authenticate",), 429: ("Retry-After", *_LIMIT_HEADERS), 503: ("Retry-After",)}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": text,
        "headers": _headers(*headers.get(status, ())),
        "content": {_PROBLEM: {"schema": schema}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name][0], "schema": _HEADERS[name][1]} for name in names}
