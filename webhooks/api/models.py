"""What `/v1` accepts and answers, as pydantic models: validation and the OpenAPI document are made from them."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache, reduce
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

from flask import Response
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    RootModel,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from jobs import Code, InvalidRequest, OnUnknown, Status, providers
from jobs.job import FINAL
from jobs.listing import CURSOR, condition_errors
from jobs.new_job import MAX_DEADLINE_SECONDS, MAX_URL_LENGTH
from jobs.request import field_errors
from jobs.view import JobView, Sha256, View

#: the largest batch
MAX_JOBS = 1000
#: the largest page of a list
MAX_PAGE = 100

_PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_HTTP_URL = rf"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:(?:{_PORT}))?(/[!-~]*)?$"
_DEADLINE_SCHEMA = {"type": "number", "minimum": 1, "maximum": MAX_DEADLINE_SECONDS}
_URL_SCHEMA = {"type": "string", "maxLength": MAX_URL_LENGTH, "pattern": _HTTP_URL}


class Body(BaseModel):
    """The base of what is accepted: unknown fields are refused, and types are not guessed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        # In the OpenAPI document it is `Retry`, not `RetryBody`.
        model_title_generator=lambda model: model.__name__.removesuffix("Body"),
    )


Model = TypeVar("Model", bound=Body)


def validate(model: type[Model], value: Any) -> Model:
    """The value as a model. Raises InvalidRequest with every fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(*field_errors(error, model)) from None


# --- new jobs -------------------------------------------------------------------------------------------------------


class JobOptions(Body):
    """The options of a new job of any operation: their types. `jobs.new_job` checks their values."""

    metadata: dict[str, Any] = Field(
        default_factory=dict,
        description="Your own data, at most 16 kB as JSON. It comes back with the job and in webhooks.",
    )
    deadline_seconds: Annotated[float, Field(strict=True), WithJsonSchema(_DEADLINE_SCHEMA)] | None = Field(
        default=None,
        description="How long to wait for the provider, in seconds. By default the operation's own deadline.",
    )
    on_unknown: Annotated[str, WithJsonSchema({"type": "string", "enum": list(OnUnknown)})] = Field(
        default=OnUnknown.FAIL,
        description="What happens when it is not known whether an attempt was charged: the job fails, or it is submitted "
        "again, which may be charged a second time.",
    )
    keep_late: bool = Field(
        default=False,
        strict=True,
        description="Whether the images of a canceled job are stored if they arrive after all.",
    )
    webhook_url: (
        # Its value may contain a secret, so it is checked where errors do not repeat it.
        Annotated[str, Field(min_length=1), WithJsonSchema(_URL_SCHEMA)] | None
    ) = Field(
        default=None,
        description="Where webhooks about the job are sent: an https URL (http where private networks are allowed).",
    )
    webhook_events: tuple[Annotated[str, WithJsonSchema({"type": "string", "enum": list(Status)})], ...] | None = Field(
        default=None,
        max_length=len(Status),
        description=f"The statuses that send a webhook. By default {', '.join(FINAL)}, unless the server is configured "
        "otherwise.",
    )


class NewJobBody(JobOptions):
    """A new job, whose params are not validated yet."""

    operation: str
    params: dict[str, Any]


class BatchBody(Body):
    """A new batch, whose jobs are not validated yet."""

    jobs: list[Any] = Field(min_length=1, max_length=MAX_JOBS)


@cache
def new_job_schema() -> Any:
    """The model that describes a new job: one variant for each operation, with its own params."""
    variants = [_variant(name) for name in providers.operation_names()]
    union: Any = Annotated[reduce(operator.or_, variants), Field(discriminator="operation")]
    # The document shows the name of the class.
    return type("NewJob", (RootModel[union],), {"__doc__": "A job of one of the operations.", "__module__": __name__})


def _variant(operation: str) -> type[JobOptions]:
    found = providers.operation(operation)
    request = found.request
    examples: Any = [{"operation": operation, "params": example} for example in providers.examples(found)]
    fields: Any = {
        "operation": (Literal[operation], Field(description="What to render.")),
        "params": (request, Field(description="The operation's own fields.")),
    }
    name = "New" + "".join(word.capitalize() for word in re.split(r"[.-]", operation))
    model: type[JobOptions] = create_model(name, __base__=JobOptions, __doc__=request.__doc__, **fields)
    model.model_config = {**model.model_config, "json_schema_extra": {"examples": examples}}
    model.model_rebuild(force=True)
    return model


@cache
def new_batch_schema() -> type[BaseModel]:
    """The model that describes a new batch."""
    field: Any = (
        list[new_job_schema()],  # type: ignore[misc]  # a model that is made at run time
        Field(min_length=1, max_length=MAX_JOBS, description="The jobs: all are enqueued, or none."),
    )
    return create_model("NewBatch", __base__=Body, __doc__="Jobs that are enqueued together.", jobs=field)


# --- actions on a job -----------------------------------------------------------------------------------------------


class CancelBody(Body):
    """Nothing needs to be sent."""


class RetryBody(Body):
    """How to retry a job."""

    may_charge_again: bool = Field(
        default=False, strict=True, description="Whether you accept that the provider may charge a second time."
    )


class RedeliverBody(Body):
    """Which webhooks to send again."""

    delivery: str | None = Field(
        default=None, max_length=100, description="The id of a delivery. By default all deliveries of the job."
    )


# --- the query of a list --------------------------------------------------------------------------------------------


def _parse_limit(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[1-9][0-9]{0,2}", value):
        raise ValueError(f"should be a number from 1 to {MAX_PAGE}")
    return value


def _parse_time(value: Any) -> Any:
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError("should be a time with its zone, for example 2026-11-26T08:00:00Z")
    return at


def _parse_statuses(text: Any) -> Any:
    return tuple(part.strip() for part in text.split(",")) if isinstance(text, str) else text


_STATUSES = "|".join(Status)
_METADATA = "metadata."


class JobQuery(Body):
    """The query of `GET /v1/jobs`: the types of its parameters. `jobs.listing` checks their values."""

    status: Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_statuses),
        WithJsonSchema({"type": "string", "pattern": f"^({_STATUSES})(,({_STATUSES}))*$", "example": "queued,running"}),
    ] = Field(default=(), description="Only jobs with this status, or with one of several separated by commas.")
    operation: Annotated[
        str | None,
        WithJsonSchema({"type": "string", "enum": list(providers.operation_names())}),
    ] = Field(default=None, description="Only jobs of this operation.")
    code: Annotated[
        str | None,
        WithJsonSchema({"type": "string", "enum": list(Code)}),
    ] = Field(default=None, description="Only jobs that failed with this code.")
    metadata: Annotated[
        dict[str, str],
        # As OpenAPI writes an object in a query: each of its properties is a parameter.
        WithJsonSchema(
            {
                "type": "object",
                "propertyNames": {"pattern": rf"^{re.escape(_METADATA)}[A-Za-z0-9_.-]+$"},
                "additionalProperties": {"type": "string"},
            }
        ),
    ] = Field(
        default_factory=dict,
        description="Only jobs whose metadata has these values, each as `metadata.KEY=VALUE`. A text also matches the "
        "number that it spells.",
    )
    created_after: Annotated[
        datetime | None,
        BeforeValidator(_parse_time),
        WithJsonSchema({"type": "string", "format": "date-time"}),
    ] = Field(default=None, description="Only jobs that were enqueued later than this.")
    unknown: Annotated[Literal["true", "false"] | None, WithJsonSchema({"type": "boolean"})] = Field(
        default=None,
        description="Only jobs with an attempt whose outcome is unknown, so that it may have been charged.",
    )
    limit: Annotated[
        int, BeforeValidator(_parse_limit), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_PAGE})
    ] = Field(default=20, ge=1, le=MAX_PAGE, description="The largest number of jobs in the page.")
    cursor: Annotated[
        str | None,
        WithJsonSchema({"type": "string", "pattern": f"^({CURSOR.pattern})?$"}),
    ] = Field(default=None, description="`next_cursor` of the page before.")


def parse_query(parameters: Mapping[str, str]) -> JobQuery:
    """The query of these parameters. Raises InvalidRequest with every fault."""
    given: dict[str, Any] = {name: text for name, text in parameters.items() if not name.startswith(_METADATA)}
    metadata = {name.removeprefix(_METADATA): text for name, text in parameters.items() if name not in given}
    try:
        return validate(JobQuery, ({"metadata": metadata} if metadata else {}) | given)
    except InvalidRequest as error:
        # The texts are checked even then, so that all faults are found at once.
        texts = {name: given[name] for name in ("operation", "code", "cursor") if given.get(name)}
        statuses = _parse_statuses(given.get("status"))
        raise InvalidRequest(*error.errors, *condition_errors({**texts, "status": statuses})) from None


# --- answers --------------------------------------------------------------------------------------------------------


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    jobs: tuple[JobView, ...] = Field(description="The jobs.")
    next_cursor: str | None = Field(description="The cursor of the next page; null on the last page.")


class Batch(BaseModel):
    """The jobs of a batch."""

    jobs: tuple[JobView, ...] = Field(description="The jobs, in the order of the request.")


class Upload(BaseModel):
    """An uploaded image."""

    reference: Annotated[str, Field(pattern=r"^staged:[0-9a-f]{64}\.[a-z]{3,4}$")] = Field(
        description="Use it in any image field; it is valid for as long as job records are kept."
    )
    content_type: str = Field(description="The media type, as determined from the bytes.")
    width: int = Field(description="The width in pixels.")
    height: int = Field(description="The height in pixels.")
    size: int = Field(description="The size in bytes.")
    sha256: Sha256 = Field(description="The SHA-256 digest of the bytes, in hex.")


class InvalidField(BaseModel):
    """A field with an invalid value."""

    field: str = Field(description="The path of the field, for example `params.prompt`.")
    message: str = Field(description="What is wrong with its value.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="A URI that identifies the kind of error.")
    title: str = Field(description="The name of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong, in a sentence.")
    errors: tuple[InvalidField, ...] = Field(default=(), description="With 422: each invalid field.")
    reason: str | None = Field(default=None, description="With 409: why the job does not allow it, for programs.")
    job_status: Status | None = Field(default=None, description="With 409: the job's status.")
    job_id: str | None = Field(default=None, description="With 422: the job that the idempotency key belongs to.")
    required_scope: str | None = Field(default=None, description="With 403: the scope that the API key lacks.")


class OperationFieldView(View):
    """One field of an operation's params."""

    name: str = Field(description="The name of the field.")
    type: str = Field(description="What the field accepts, in words.")
    required: bool = Field(description="Whether params must have it.")
    default: Any = Field(description="Its value when params do not have it.")
    description: str = Field(description="What it means.")


class OperationView(View):
    """One service of a provider, and how to ask for it."""

    model_config = ConfigDict(validate_by_name=True)

    name: str = Field(description="The name, for example `deepmode.generate`.")
    provider: str = Field(description="The provider, for example `deepmode`.")
    description: str = Field(description="What it renders, in a sentence.")
    price: str = Field(description="What the example is expected to cost, in words.")
    result: str = Field(description="How the result arrives, in words.")
    deadline_seconds: float = Field(description="How long a job waits for the provider by default, in seconds.")
    fields: tuple[OperationFieldView, ...] = Field(description="The fields of `params`.")
    params_schema: dict[str, Any] = Field(validation_alias="schema", description="The JSON schema of `params`.")
    example: Json[dict[str, Any]] = Field(
        validation_alias="json_example", description="The body of a `POST /v1/jobs` that runs."
    )


class OperationList(BaseModel):
    """All operations."""

    operations: tuple[OperationView, ...] = Field(description="The operations, by name.")


def json_response(model: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The model as a JSON response."""
    return Response(model.model_dump_json(), status, content_type="application/json")
