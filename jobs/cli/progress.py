"""Show jobs until they are final: live on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.text import Text

from ..darkroom import Darkroom
from ..job import Job, Status
from .console import err, show, width_of
from .job_text import failure_code, job_lines, waits_for

#: the live view is drawn again at least so often, in seconds
REFRESH_SECONDS = 1.0


def follow(
    darkroom: Darkroom, ids: Sequence[str], *, timeout: float | None = None, transient: bool = False
) -> Mapping[str, Job]:
    """Show on stderr what each job does and waits for, until all are final; returns the jobs by id.

    `timeout` is in seconds; `transient` clears the live view at the end. Raises TimeoutError.
    """
    give_up_at = math.inf if timeout is None else time.monotonic() + timeout
    with darkroom.repository.changes.listen(*ids) as waiter, _Progress(darkroom, transient) as progress:
        while True:
            jobs = {job_id: job for job_id, job in darkroom.repository.get_many(ids).items() if job}
            progress.update(jobs)
            open_jobs = [job for job in jobs.values() if not job.status.is_final]
            if not open_jobs:
                return jobs
            left = give_up_at - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"{len(open_jobs)} jobs are not final after {timeout:g} s, for example {open_jobs[0].id}"
                )
            waiter.wait(min(left, REFRESH_SECONDS))


class _Progress:
    """The view of jobs on stderr."""

    def __init__(self, darkroom: Darkroom, transient: bool) -> None:
        self._repository = darkroom.repository
        self._console = err()
        live = Live(console=self._console, auto_refresh=False, transient=transient)
        self._live = live if self._console.is_terminal and not self._console.is_dumb_terminal else None
        self._shown: dict[str, Status] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, jobs: Mapping[str, Job]) -> None:
        """Show the jobs as they are now."""
        now, served = self._repository.now(), self._repository.served_operations()

        def state(job: Job) -> str:
            if job.status.is_final:
                return failure_code(job)
            return f"waits for {waits_for(job, now, served=job.operation in served)}"

        if self._live:
            lines = job_lines(tuple(jobs.values()), now, width_of(self._console), last=("", state))
            self._live.update(Text("\n").join(lines), refresh=True)
            return
        for job in jobs.values():
            if self._shown.get(job.id) is not job.status:
                self._shown[job.id] = job.status
                end = state(job)
                show([f"{job.id} {job.operation} {job.status}{f', {end}' if end else ''}"], self._console)
