"""The one task: it starts a job on the process's event loop, and returns."""

from __future__ import annotations

from jobs.queue import TASK

from . import process
from .celery import app


@app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run(job_id: str) -> None:
    """Do the next step of the job. Blocks while the process has no room, so that the backlog stays in the broker."""
    process.run_when_free(job_id)
