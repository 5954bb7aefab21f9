"""`POST /v1/batches`: many jobs in one request, all or none."""

from __future__ import annotations

from flask import Response

from jobs import FieldError, InvalidRequest
from jobs.new_job import NewJob
from jobs.view import JobView

from .access import api, caller, routes
from .models import Batch, BatchBody, json_response, validate
from .new_jobs import MAX_BYTES, created_status, fingerprint, idempotency_key, located_errors, parse_new_job


@routes.post("/batches")
def enqueue_many() -> Response:
    """Enqueue jobs."""
    key = idempotency_key()
    new_jobs = _parse(validate(BatchBody, api().read_json(MAX_BYTES)).jobs)
    with located_errors(new_jobs, in_batch=True):
        jobs = api().darkroom.enqueue_many(
            new_jobs,
            idempotency_key=key or None,
            owner=caller().name,
            fingerprint=fingerprint(new_jobs) if key else "",
        )
    return json_response(Batch(jobs=tuple(map(JobView.of, jobs))), created_status(jobs[0]))


def _parse(values: list[object]) -> list[NewJob]:
    """The jobs of a body. Raises InvalidRequest with every fault of all of them."""
    new_jobs: list[NewJob] = []
    errors: list[FieldError] = []
    for index, value in enumerate(values):
        try:
            new_jobs.append(parse_new_job(value))
        except InvalidRequest as error:
            errors += (one.below(f"jobs.{index}") for one in error.errors)
    if errors:
        raise InvalidRequest(*errors)
    return new_jobs
