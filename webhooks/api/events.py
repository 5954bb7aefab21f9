"""`GET /v1/jobs/<id>/events`: the changes of a job as server-sent events, until it is final."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus

from flask import Response, request

from jobs import DarkroomError, Job
from jobs.state.changes import Changes
from jobs.view import JobView

from .access import api, routes

#: a comment is sent after so many silent seconds, by which a server notices that the client has disconnected
HEARTBEAT_SECONDS = 10.0
#: a client should reconnect so many milliseconds after a stream has ended
RECONNECT_MS = 2000


@routes.get("/jobs/<job_id>/events")
def stream_events(job_id: str) -> Response:
    """Stream the changes of a job."""
    last_event_id = request.headers.get("Last-Event-ID", "")
    job = api().job(job_id)
    if job.status.is_final and last_event_id == job.version:
        return Response(status=HTTPStatus.NO_CONTENT)  # tells an EventSource not to reconnect
    darkroom = api().darkroom
    with ExitStack() as stack:
        stack.enter_context(api().wait())
        events = job_events(
            darkroom.repository.changes, job_id, lambda: darkroom.get(job_id), last_event_id, api().stream_seconds
        )
        response = Response(events, content_type="text/event-stream")
        response.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # The end of the generator is too late: one that was never started does not end.
        response.call_on_close(stack.pop_all().close)
    return response


def job_events(
    changes: Changes,
    job_id: str,
    read: Callable[[], Job],
    last_event_id: str,
    seconds: float,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> Iterator[str]:
    """The job whenever its version is not the last one that was sent, until it is final or `seconds` are over."""
    yield f"retry: {RECONNECT_MS}\n\n"
    ends_at, sent_at = time.monotonic() + seconds, time.monotonic()
    with changes.listen(job_id) as waiter:
        while time.monotonic() < ends_at:
            try:
                job = read()
            except DarkroomError:
                return  # Redis is away, or the job was deleted: the client learns it when it reconnects
            if job.version != last_event_id:
                last_event_id, sent_at = job.version, time.monotonic()
                yield f"id: {job.version}\nevent: job\ndata: {JobView.of(job).model_dump_json()}\n\n"
            elif time.monotonic() - sent_at >= heartbeat_seconds:
                sent_at = time.monotonic()
                yield ": heartbeat\n\n"
            if job.status.is_final:
                return
            waiter.wait(min(heartbeat_seconds, seconds))
