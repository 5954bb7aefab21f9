"""`POST /v1/batches`: many jobs in one request, all or none."""

from __future__ import annotations

from flask import Response

from jobs.view import JobView

from .access import api, caller, routes
from .models import Batch, BatchBody, json_response, validate
from .new_jobs import MAX_BYTES, created_status, fingerprint, idempotency_key, located_errors, parse_batch


@routes.post("/batches")
def enqueue_many() -> Response:
    """Enqueue jobs."""
    key = idempotency_key()
    new_jobs = parse_batch(validate(BatchBody, api().read_json(MAX_BYTES)).jobs, api().darkroom)
    with located_errors(new_jobs, in_batch=True):
        jobs = api().darkroom.enqueue_many(
            new_jobs,
            idempotency_key=key or None,
            owner=caller().name,
            fingerprint=fingerprint(new_jobs) if key else "",
        )
    return json_response(Batch(jobs=tuple(map(JobView.of, jobs))), created_status(jobs[0]))
