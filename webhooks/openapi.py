"""The OpenAPI 3.1 document of `/v1`, made from the models that validate requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from jobs import providers
from jobs.state.api_keys import Scope

from .api.models import Problem, new_batch_schema, new_job_schema
from .problems import CONTENT_TYPE as PROBLEM
from .routes import JSON, ROUTES, Answer, Route

_ERRORS: Mapping[int, str] = {
    400: "The request could not be parsed.",
    401: "There is no API key, or it is invalid.",
    403: "The API key lacks the scope in `required_scope`.",
    404: "It does not exist, was deleted, or belongs to another owner.",
    408: "The body took too long to arrive.",
    409: "The job's status does not allow it; `reason` says why.",
    413: "The body is too large.",
    415: "The media type of the body is not supported.",
    422: "Fields are invalid, each listed in `errors`; or the idempotency key was used for another request.",
    429: "The API key's rate limit is exceeded.",
    500: "An internal error.",
    503: "Redis or the storage is unavailable, or too many requests are waiting.",
}
#: the errors of every route
_COMMON_ERRORS = (401, 403, 429, 500, 503)

_HEADERS: Mapping[str, Any] = {
    "Location": ("The URL of the job.", {"type": "string"}),
    "ETag": ("The version of the job, for If-None-Match.", {"type": "string"}),
    "Retry-After": ("Seconds after which to ask again.", {"type": "integer", "minimum": 0}),
    "Preference-Applied": ("The wait that was granted.", {"type": "string"}),
    "RateLimit": ("What is left of the rate limit, if there is one.", {"type": "string"}),
    "RateLimit-Policy": ("The rate limit, if there is one.", {"type": "string"}),
    "WWW-Authenticate": ("The required authentication.", {"type": "string"}),
}
_RATE_LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")
_ERROR_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After", *_RATE_LIMIT_HEADERS), 503: ("Retry-After",)}

#: one event; OpenAPI 3.1 cannot describe a stream of them
_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "For Last-Event-ID."},
        "event": {"const": "job"},
        "data": {
            "type": "string",
            "contentMediaType": JSON,
            "contentSchema": {"$ref": "#/components/schemas/Job"},
        },
    },
    "required": ["id", "event", "data"],
}


def document() -> dict[str, Any]:
    """The document."""
    schemas, references = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route, references)
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
        "tags": [{"name": name} for name in dict.fromkeys(route.tag for route in ROUTES)],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, with its scopes."}
            },
            "schemas": schemas,
            "responses": {
                str(status): {
                    "description": text,
                    "headers": _headers(_ERROR_HEADERS.get(status, ())),
                    "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, text in _ERRORS.items()
            },
        },
    }


@cache
def document_json() -> bytes:
    """The document as JSON."""
    return json.dumps(document(), separators=(",", ":")).encode()


class _JsonSchema(GenerateJsonSchema):
    """Names a schema as API clients see it: `Job` for `JobView`, `Retry` for `RetryBody`."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name).removesuffix("View").removesuffix("Body")


def _schemas() -> tuple[dict[str, Any], Mapping[Any, Mapping[str, Any]]]:
    """The schemas of all models, by name, and a reference to each model's."""
    bodies = {route.body for route in ROUTES if isinstance(route.body, type)}
    answers = {answer.model for route in ROUTES for answer in route.answers if answer.model} | {Problem}
    models: list[Any] = [(model, "validation") for model in bodies] + [(model, "serialization") for model in answers]
    models.sort(key=lambda pair: pair[0].__name__)
    references, definitions = models_json_schema(
        models, schema_generator=_JsonSchema, ref_template="#/components/schemas/{model}"
    )
    return definitions["$defs"], {model: reference for (model, _), reference in references.items()}


def _operation(route: Route, references: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """A route as OpenAPI describes it."""
    scope = Scope.JOBS_READ if route.method == "get" else Scope.JOBS_WRITE
    errors = sorted({*_COMMON_ERRORS, *map(int, route.errors)})
    operation: dict[str, Any] = {
        "operationId": route.id,
        "summary": route.summary,
        "description": " ".join(filter(None, (route.description, f"Scope: `{scope}`."))),
        "tags": [route.tag],
        "security": [{"key": [scope.value]}],
        "parameters": [*route.parameters, *(_query_parameters(route.query) if route.query else ())],
        "responses": {
            **{str(answer.status): _answer(answer, references) for answer in route.answers},
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in errors},
        },
    }
    if isinstance(route.body, Mapping):
        operation["requestBody"] = route.body
    elif route.body is not None:
        content = {"schema": references[route.body], **_examples(route.body)}
        operation["requestBody"] = {"required": route.body_required, "content": {JSON: content}}
    return operation


def _examples(body: type[BaseModel]) -> dict[str, Any]:
    """The examples of the providers' own files; they run."""
    jobs = [
        {"operation": name, "params": params, "metadata": {"user": "42"}}
        for name in providers.operation_names()
        for params in providers.examples(providers.operation(name))
    ]
    if body is new_job_schema():
        return {"examples": {job["operation"]: {"value": job} for job in jobs}}
    return {"examples": {"two jobs": {"value": {"jobs": jobs[:2]}}}} if body is new_batch_schema() else {}


def _query_parameters(model: type[BaseModel]) -> Sequence[dict[str, Any]]:
    """The parameters of a query. One that is null by default is simply not sent."""
    parameters = []
    for name, field in model.model_json_schema()["properties"].items():
        schema = {key: value for key, value in field.items() if key not in ("description", "title")}
        if "anyOf" in schema:
            schema = next(option for option in schema["anyOf"] if option != {"type": "null"})
        if schema.get("default", "") in (None, []):
            del schema["default"]
        description = field.get("description", "")
        parameters.append(
            {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
        )
    return parameters


def _answer(answer: Answer, references: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": answer.description,
        "headers": _headers((*answer.headers, *_RATE_LIMIT_HEADERS)),
    }
    if answer.model:
        described["content"] = {answer.media_type: {"schema": references[answer.model]}}
    elif answer.media_type != JSON:
        described["content"] = {answer.media_type: {"schema": _EVENT}}
    return described


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name][0], "schema": _HEADERS[name][1]} for name in names}
