"""`GET /v1/jobs/<id>/events`: a job as server-sent events, from the record that the client knows to the final one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus

from flask import Blueprint, Response, request

from jobs import DarkroomError, Job
from jobs.state.changes import Changes
from jobs.view import JobView

from .access import Api

#: a silent stream is kept open by a comment so often; where nobody listens any more, it finds that out
HEARTBEAT_SECONDS = 10.0
#: how soon a client whose stream ended comes back
RETRY_MS = 2000


def add(routes: Blueprint, api: Api) -> None:
    """The route."""

    @routes.get("/jobs/<job_id>/events")
    def stream(job_id: str) -> Response:
        known = request.headers.get("Last-Event-ID", "")
        job = api.job(job_id)
        if job.status.final and known == job.version:
            return Response(status=HTTPStatus.NO_CONTENT)  # tells an EventSource to stay away
        with ExitStack() as held:
            held.enter_context(api.seat())
            lines = told(
                api.darkroom.repository.changes, job_id, lambda: api.darkroom.get(job_id), known, api.stream_seconds
            )
            response = Response(lines, content_type="text/event-stream")
            response.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
            # Not at the generator's end: one that was never begun has none.
            response.call_on_close(held.pop_all().close)
        return response


def told(
    changes: Changes,
    job_id: str,
    read: Callable[[], Job],
    known: str,
    seconds: float,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> Iterator[str]:
    """The job whenever its record is not the one last told, and a comment now and then, until it is final or time is up."""
    yield f"retry: {RETRY_MS}\n\n"
    ends_at, spoke_at = time.monotonic() + seconds, time.monotonic()
    with changes.listen(job_id) as waiter:
        while time.monotonic() < ends_at:
            try:
                job = read()
            except DarkroomError:
                return  # Redis is away, or the job was forgotten: whoever comes back is told so
            if job.version != known:
                known, spoke_at = job.version, time.monotonic()
                yield _event(job)
            elif time.monotonic() - spoke_at >= heartbeat_seconds:
                spoke_at = time.monotonic()
                yield ": still here\n\n"
            if job.status.final:
                return
            waiter.wait(min(heartbeat_seconds, seconds))


def _event(job: Job) -> str:
    return f"id: {job.version}\nevent: job\ndata: {JobView.of(job).model_dump_json()}\n\n"
