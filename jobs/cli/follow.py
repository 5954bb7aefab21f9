"""`darkroom get`, `watch` and `list`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import click
from rich.live import Live

from .. import darkroom
from ..darkroom import Darkroom
from ..job import Job, Status
from ..listing import MAX_PAGE
from ..view import JobView
from .console import err, out, print_json
from .show import detail, listing

_WAITING = tuple(status for status in Status if not status.final)


@click.command(short_help="Show one job: status, ledger, timeline and pictures.")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def get(job_id: str, as_json: bool) -> None:
    """Show one job: its status, its ledger, its timeline and its pictures."""
    house = darkroom.current()
    job = house.get(job_id)
    if as_json:
        print_json(JobView.of(job))
        return
    out().print(detail(job, served=job.status.final or job.operation in house.repository.served_operations()))


@click.command(short_help="Follow jobs live until all are final.")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
def watch(job_ids: tuple[str, ...]) -> int:
    """Follow jobs live until all are final; without an ID those that are not. Exit 0 only if all succeeded."""
    house = darkroom.current()
    ids = [house.get(job_id).id for job_id in job_ids]
    ids = ids or [job.id for job in reversed(house.list(_WAITING, limit=50).jobs)]
    jobs = follow(house, ids)
    return 0 if all(job.status is Status.SUCCEEDED for job in jobs.values()) else 1


def follow(
    house: Darkroom, ids: Sequence[str], *, timeout: float | None = None, transient: bool = False
) -> Mapping[str, Job]:
    """Shows the jobs on stderr until all are final, live on a terminal, a line a change elsewhere.

    `transient` wipes the live table at the end. Raises TimeoutError.
    """
    give_up_at = None if timeout is None else time.monotonic() + timeout
    with house.repository.changes.listen(*ids) as waiter, _Display(house, transient) as show:
        while True:
            jobs = {job_id: job for job_id, job in house.repository.get_many(ids).items() if job}
            show(jobs)
            if all(job.status.final for job in jobs.values()):
                return jobs
            if give_up_at is not None and time.monotonic() > give_up_at:
                waiting = [job.id for job in jobs.values() if not job.status.final]
                raise TimeoutError(f"{len(waiting)} job(s) are not final after {timeout:g} s, {waiting[0]} among them")
            waiter.wait(math.inf if give_up_at is None else give_up_at - time.monotonic())


class _Display:
    """Shows jobs on stderr, again and again."""

    def __init__(self, house: Darkroom, transient: bool) -> None:
        self._now = house.repository.now
        self._console = err()
        live = Live(console=self._console, auto_refresh=False, transient=transient)
        self._live = live if self._console.is_terminal else None
        self._last: dict[str, Status] = {}

    def __enter__(self) -> Callable[[Mapping[str, Job]], None]:
        if self._live:
            self._live.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def _show(self, jobs: Mapping[str, Job]) -> None:
        if self._live:
            self._live.update(listing(jobs.values(), self._now()), refresh=True)
            return
        for job in jobs.values():
            if self._last.get(job.id, Status.QUEUED) is not job.status:
                self._last[job.id] = job.status
                self._console.print(f"{job.id} {job.operation} {job.status}", markup=False, soft_wrap=True)


@click.command("list")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in Status]),
    help="May be repeated.",
)
@click.option("--operation", help="Only jobs of this operation.")
@click.option("--unknown", is_flag=True, help="Only jobs with an attempt whose end nobody saw.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as JSON, one a line.")
def list_jobs(statuses: tuple[str, ...], operation: str | None, unknown: bool, limit: int, as_json: bool) -> None:
    """List the latest jobs."""
    house = darkroom.current()
    page = house.list(statuses, operation=operation, unknown=unknown, limit=min(limit, MAX_PAGE))
    jobs = list(page.jobs)
    while page.next_cursor and len(jobs) < limit:
        left = min(limit - len(jobs), MAX_PAGE)
        page = house.list(statuses, operation=operation, unknown=unknown, limit=left, cursor=page.next_cursor)
        jobs += page.jobs
    if as_json:
        for job in jobs:
            print_json(JobView.of(job))
        return
    out().print(listing(jobs, house.repository.now()))
