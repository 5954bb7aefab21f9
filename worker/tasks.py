"""The one task: it hands a job to the process's loop and returns."""

from __future__ import annotations

from jobs.queue import TASK

from . import process
from .celery import app


@app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def run(job_id: str) -> None:
    """Whatever the job needs next. Blocks while the process has no room, so that the backlog stays in the broker."""
    process.admit(job_id)
