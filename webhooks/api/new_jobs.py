"""What `POST /v1/jobs` and `POST /v1/batches` share: the jobs of a body, its idempotency key, its faults."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from flask import request
from pydantic import ValidationError

from jobs import FieldError, InvalidRequest, Job, providers
from jobs.darkroom import Darkroom
from jobs.new_job import NewJob, errors_of, option_errors
from jobs.request import field_errors

from .models import JobOptions, NewJobBody

#: the largest body, in bytes: requests with their images as base64
MAX_BYTES = 64 << 20

#: a string of RFC 9651, or the bare text that many clients send
_KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"|([ !#-~][ -~]*)')


def idempotency_key() -> str:
    """The `Idempotency-Key` of this request, quoted or bare; "" without one. Raises InvalidRequest."""
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return ""
    match = _KEY.fullmatch(header.strip())
    key = (re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2]) if match else ""
    if not 1 <= len(key) <= 255:
        raise InvalidRequest(
            FieldError("Idempotency-Key", "should be 1 to 255 printable ASCII characters, quoted or bare")
        )
    return key


def parse_new_job(value: Any, darkroom: Darkroom) -> NewJob:
    """A job of a body. Raises InvalidRequest with every fault."""
    errors: list[FieldError] = []
    body, parsed = None, None
    try:
        body = NewJobBody.model_validate(value)
    except ValidationError as error:
        errors += field_errors(error, NewJobBody)
    # The params and the other options are checked even then, so that all faults are found at once.
    name, params = (value.get("operation"), value.get("params")) if isinstance(value, dict) else (None, None)
    if isinstance(name, str) and isinstance(params, dict):
        try:
            operation = providers.operation(name)
        except InvalidRequest as error:
            errors += error.errors
        else:
            try:
                parsed = operation.request.model_validate(params, context={"base64_images": True})
            except InvalidRequest as error:
                errors += (one.below("params") for one in error.errors)
    if body is None or parsed is None:
        wrong = {error.field.partition(".")[0] for error in errors}
        given = value if isinstance(value, dict) else {}
        options = {name: given[name] for name in JobOptions.model_fields if name in given and name not in wrong}
        raise InvalidRequest(*errors, *option_errors(options, darkroom.settings))
    return NewJob(parsed, **{name: getattr(body, name) for name in JobOptions.model_fields})


def parse_batch(values: Sequence[Any], darkroom: Darkroom) -> Sequence[NewJob]:
    """The jobs of a batch. Raises InvalidRequest with every fault of all of them."""
    parsed: dict[int, NewJob] = {}
    errors: dict[int, Sequence[FieldError]] = {}
    for index, value in enumerate(values):
        try:
            parsed[index] = parse_new_job(value, darkroom)
        except InvalidRequest as error:
            errors[index] = error.errors
    if errors:
        for index, new in parsed.items():
            errors[index] = [_located(one, new) for one in errors_of(new, darkroom.settings, darkroom.storage)]
        raise InvalidRequest(*(one.below(f"jobs.{index}") for index in range(len(values)) for one in errors[index]))
    return tuple(parsed.values())


def fingerprint(new_jobs: Sequence[NewJob]) -> str:
    """A digest of the options of jobs: with the same idempotency key, they must be the same."""
    options = [{name: value for name, value in vars(new).items() if name != "request"} for new in new_jobs]
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


@contextmanager
def located_errors(new_jobs: Sequence[NewJob], *, in_batch: bool = False) -> Iterator[None]:
    """Give the fields of an InvalidRequest that the block raises their paths in the body."""

    def located(error: FieldError) -> FieldError:
        if not in_batch:
            return _located(error, new_jobs[0])
        index, _, field = error.field.partition(".")
        return _located(replace(error, field=field), new_jobs[int(index)]).below(f"jobs.{index}")

    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(*map(located, error.errors)) from None


def _located(error: FieldError, new: NewJob) -> FieldError:
    return error.below("params") if error.field.partition(".")[0] in type(new.request).model_fields else error


def created_status(job: Job) -> HTTPStatus:
    """202 for a new job, 200 for one that was enqueued before with the same idempotency key."""
    # Only a record that was read from Redis has a version.
    return HTTPStatus.OK if job.version else HTTPStatus.ACCEPTED
