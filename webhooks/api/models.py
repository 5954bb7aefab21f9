"""What `/v1` takes, as pydantic models: the one source of validation and of the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

from flask import Response
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from jobs import OnUnknown, Status, providers
from jobs.job import FINAL
from jobs.listing import CURSOR
from jobs.new_job import MAX_DEADLINE_SECONDS, MAX_URL_LENGTH, NewJob
from jobs.view import JobView, Sha256

from ..problems import InvalidFields, Wrong

#: the most jobs of a batch
MAX_JOBS = 1000
#: a page holds so many jobs at most
MAX_PAGE = 100

_PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_HTTP_URL = rf"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:(?:{_PORT}))?(/[!-~]*)?$"

Model = TypeVar("Model", bound=BaseModel)


class Body(BaseModel):
    """The root of what is taken: unknown fields are refused, and types are not guessed."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class JobOptions(Body):
    """What can be wanted for a job, whatever its operation."""

    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Yours, at most 16 kB as JSON; it comes back with the job."
    )
    deadline_seconds: float | None = Field(
        None,
        ge=1,
        le=MAX_DEADLINE_SECONDS,
        allow_inf_nan=False,
        strict=True,
        description="How long a provider is waited for, from now on. By default the operation's own.",
    )
    on_unknown: OnUnknown = Field(
        OnUnknown.FAIL,
        description="What becomes of a job whose submission ended unseen and cannot be looked up: it fails, or it is "
        "submitted again, which may be charged twice.",
    )
    keep_late: bool = Field(False, strict=True, description="Keep the pictures of a canceled job that come after all.")
    webhook_url: str | None = Field(
        None,
        max_length=MAX_URL_LENGTH,
        pattern=_HTTP_URL,
        description="Where the job tells of itself by signed webhooks; https, unless private networks are allowed.",
    )
    webhook_events: tuple[Status, ...] | None = Field(
        None,
        max_length=len(Status),
        description=f"The statuses of which it tells; {', '.join(FINAL)} unless the server was told otherwise.",
    )


@cache
def new_job() -> Any:
    """The model of a new job: one variant for each operation, told apart by `operation`."""
    variants = tuple(_variant(name) for name in providers.operation_names())
    union: Any = Annotated[_either(variants), Field(discriminator="operation")]
    # A class of this name, so that the document calls it so.
    return type("NewJob", (RootModel[union],), {"__doc__": "A job of one of the operations.", "__module__": __name__})


def _either(variants: tuple[Any, ...]) -> Any:
    union = variants[0]
    for variant in variants[1:]:
        union = union | variant
    return union


def _variant(operation: str) -> type[JobOptions]:
    request = providers.operation(operation).request
    shown: Any = {"examples": [{"operation": operation, "params": example} for example in examples(operation)]}
    fields: Any = {
        "operation": (Literal[operation], Field(description="What is to be rendered.")),
        "params": (request, Field(description="The operation's own fields.")),
    }
    words = re.split(r"[.-]", operation)
    name = "New" + "".join(word.capitalize() for word in words)
    model: type[JobOptions] = create_model(name, __base__=JobOptions, __doc__=request.__doc__, **fields)
    model.model_config = {**model.model_config, "json_schema_extra": shown}
    model.model_rebuild(force=True)
    return model


def examples(operation: str) -> Sequence[Any]:
    """The params that the operation's own file gives as examples."""
    extra: Any = providers.operation(operation).request.model_config.get("json_schema_extra")
    return tuple(extra.get("examples", ())) if isinstance(extra, Mapping) else ()


@cache
def new_batch() -> type[BaseModel]:
    """The model of many new jobs."""
    field: Any = (
        list[new_job()],  # type: ignore[misc]
        Field(min_length=1, max_length=MAX_JOBS, description="The jobs: all are enqueued, or none."),
    )
    return create_model("NewBatch", __base__=Body, __doc__="Jobs that are enqueued together.", jobs=field)


def wanted(job: Any) -> NewJob:
    """What a new job of the model wants."""
    new = job.root
    return NewJob(
        new.params,
        new.metadata,
        new.deadline_seconds,
        new.on_unknown,
        new.keep_late,
        new.webhook_url,
        new.webhook_events,
    )


class Cancel(Body):
    """Nothing needs to be said."""


class Retry(Body):
    """How a job is to be tried again."""

    may_charge_again: bool = Field(False, strict=True, description="Accept that the provider may charge a second time.")


class Redeliver(Body):
    """What is to be delivered again."""

    delivery: str | None = Field(None, max_length=100, description="The id of a delivery; without it, all of the job.")


def _commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _digits(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[1-9][0-9]{0,2}", value):
        raise ValueError(f"is no number from 1 to {MAX_PAGE}")
    return value


def _operation(value: Any) -> Any:
    if value not in providers.operation_names():
        raise ValueError(f"is unknown; allowed: {', '.join(providers.operation_names())}")
    return value


def _truth(value: Any) -> Any:
    if value not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return value == "true"


_STATUSES = "|".join(Status)


class Search(Body):
    """The query of `GET /v1/jobs`."""

    status: Annotated[
        tuple[Status, ...],
        BeforeValidator(_commas),
        WithJsonSchema({"type": "string", "pattern": f"^({_STATUSES})(,({_STATUSES}))*$", "example": "queued,running"}),
    ] = Field((), description="One of the statuses, or several with commas between them.")
    operation: Annotated[
        str | None,
        BeforeValidator(_operation),
        WithJsonSchema({"type": "string", "enum": list(providers.operation_names())}),
    ] = Field(None, description="Jobs of this operation only.")
    unknown: Annotated[bool, BeforeValidator(_truth), WithJsonSchema({"type": "boolean"})] = Field(
        False, description="Jobs with an attempt whose end nobody saw, and that may have been charged, only."
    )
    limit: Annotated[
        int, BeforeValidator(_digits), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_PAGE})
    ] = Field(20, ge=1, le=MAX_PAGE, description="How many jobs at most.")
    cursor: str | None = Field(None, pattern=f"^({CURSOR.pattern})?$", description="`next_cursor` of the page before.")


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


def json_response(model: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The model as a JSON response."""
    return Response(model.model_dump_json(), status, content_type="application/json")


def checked(model: Any, value: Any) -> Any:
    """The value as a model. Raises InvalidFields that names each field."""
    try:
        return TypeAdapter(model).validate_python(value, context={"base64_images": True})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidFields([_wrong(fault["loc"], fault["type"], fault["msg"]) for fault in faults[:20]]) from None


def _wrong(path: tuple[int | str, ...], kind: str, message: str) -> Wrong:
    # The variants of a union stand in the path by their tag, which nobody wrote there.
    parts = [str(part) for part in path if part not in providers.operation_names()]
    if kind.startswith("union_tag"):
        names = ", ".join(providers.operation_names())
        return Wrong(".".join([*parts, "operation"]), f"is missing or unknown; allowed: {names}")
    return Wrong(".".join(parts) or "body", message.removeprefix("Value error, "))
