"""What `/v1` takes, as pydantic models: the one source of validation; and what the domain makes of it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from flask import request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from jobs import InvalidRequest, Job, OnUnknown, Status, providers, reading
from jobs.lifecycle import MAX_DEADLINE_SECONDS, Darkroom
from jobs.request import Request

from .problems import InvalidFields, Wrong

#: the largest body of `/v1`: a request with its images as base64
MAX_BYTES = 64 << 20
#: how many records are read at most to fill one filtered page
MOST_LOOKED_AT = 1000

_CURSOR = re.compile(r"([0-9]{1,15}) ([0-9a-f]{32})")

Model = TypeVar("Model", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class NewJob(_Model):
    """The body of `POST /v1/jobs`."""

    operation: str = Field(description="What is to be rendered, for example deepmode.generate.")
    params: dict[str, Any] = Field(
        description="The operation's own fields; an image is an https URL, a reference or base64."
    )
    metadata: dict[str, Any] = Field(default_factory=dict, description="Yours; it comes back with the job.")
    deadline_seconds: float | None = Field(None, ge=1, le=MAX_DEADLINE_SECONDS, allow_inf_nan=False)
    on_unknown: OnUnknown = OnUnknown.FAIL
    keep_late: bool = Field(False, strict=True)


def _commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Search(_Model):
    """The query of `GET /v1/jobs`."""

    status: Annotated[tuple[Status, ...], BeforeValidator(_commas)] = Field((), description="Comma-separated.")
    operation: str = ""
    limit: int = Field(20, ge=1, le=100)
    cursor: str = Field("", max_length=200, description="`next_cursor` of the page before.")


def read_model(model: type[Model], body: bytes) -> Model:
    """The JSON body as a model. Raises BadRequest, UnsupportedMediaType, or InvalidFields that names each field."""
    if request.mimetype and request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        value = reading.parsed(body)
    except ValueError:
        raise BadRequest from None
    return checked(model, value)


def read_query(model: type[Model]) -> Model:
    """The query as a model. Raises InvalidFields that names each parameter."""
    return checked(model, request.args.to_dict())


def checked(model: type[Model], value: Any, *, below: str = "", **context: Any) -> Model:
    """The value as a model. Raises InvalidFields, each field's path beginning with `below`."""
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidFields([_wrong(below, fault["loc"], fault["msg"]) for fault in faults]) from None


def _wrong(below: str, path: tuple[int | str, ...], message: str) -> Wrong:
    return Wrong(".".join(filter(None, (below, *map(str, path)))), message.removeprefix("Value error, "))


def accepted(darkroom: Darkroom, new: NewJob, *, owner: str) -> Job:
    """Enqueues it. Raises InvalidFields, IdempotencyConflict or Unavailable."""
    wanted = checked(_request_model(new.operation), new.params, below="params", base64_images=True)
    try:
        return darkroom.enqueue(
            wanted,
            idempotency_key=_idempotency_key(),
            metadata=new.metadata,
            deadline_seconds=new.deadline_seconds,
            on_unknown=new.on_unknown,
            keep_late=new.keep_late,
            owner=owner,
        )
    except InvalidRequest as error:
        in_params = error.field.partition(".")[0] in type(wanted).model_fields
        path = f"params.{error.field}" if in_params else error.field
        raise InvalidFields([Wrong(path, f"{error.value}; allowed: {error.allowed}")]) from None


def _request_model(operation: str) -> type[Request]:
    try:
        return providers.operation(operation).request
    except InvalidRequest as error:
        raise InvalidFields([Wrong("operation", f"{error.value}; allowed: {error.allowed}")]) from None


def _idempotency_key() -> str:
    """`Idempotency-Key`, with or without the quotes of a structured field."""
    key = request.headers.get("Idempotency-Key", "")
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key


@dataclass(frozen=True)
class Page:
    """Some jobs, the latest first, and the cursor of the next page, or None after the last."""

    jobs: tuple[Job, ...]
    cursor: str | None


def found(darkroom: Darkroom, search: Search) -> Page:
    """One page. With a rare operation it may be short, or empty, although a cursor leads on."""
    before, wanted = _position(search.cursor), []
    for _ in range(0, MOST_LOOKED_AT, search.limit):
        page = darkroom.list(search.status, before=before, limit=search.limit)
        for job in page:
            before = int(job.created_at.timestamp() * 1000), job.id
            if search.operation in ("", job.operation):
                wanted.append(job)
            if len(wanted) == search.limit:
                return Page(tuple(wanted), _cursor(before))
        if not page:
            return Page(tuple(wanted), None)
    return Page(tuple(wanted), _cursor(before) if before else None)


def _cursor(position: tuple[float, str]) -> str:
    return base64.urlsafe_b64encode(f"{position[0]:.0f} {position[1]}".encode()).rstrip(b"=").decode()


def _position(cursor: str) -> tuple[float, str] | None:
    if not cursor:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    if match := _CURSOR.fullmatch(text):
        return float(match[1]), match[2]
    raise InvalidFields([Wrong("cursor", "not a cursor of ours; take next_cursor from the page before")])
