"""`darkroom list`."""

from __future__ import annotations

from typing import Any

import click

from ..darkroom import current
from ..job import Job, Status
from ..listing import MAX_PAGE
from ..report import Code
from ..view import JobView
from .console import Names, note, out, print_json, show, width_of
from .job_text import job_lines
from .pairs import read_pairs
from .words import read_since


@click.command("list", short_help="List the latest jobs.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=Names([status.value for status in Status]),
    help="Only jobs in this status; may be repeated.",
)
@click.option("--operation", metavar="NAME", help="Only jobs of this operation.")
@click.option(
    "--code",
    type=Names([code.value for code in Code]),
    metavar="CODE",
    help="Only jobs that failed with this code.",
)
@click.option("--since", metavar="TIME", help="Only jobs enqueued since: 30m, 2h, 7d, or 2026-11-26T08:00 (UTC).")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Only jobs with this metadata; may be repeated.")
@click.option("--unknown", is_flag=True, help="Only jobs with an attempt whose outcome is unknown.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="The most jobs to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as JSON, one a line.")
def list_jobs(
    statuses: tuple[str, ...],
    operation: str | None,
    code: str | None,
    since: str | None,
    metadata: tuple[str, ...],
    unknown: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List the latest jobs, newest first; every filter must match."""
    darkroom = current()
    now = darkroom.repository.now()
    filters: dict[str, Any] = {
        "status": statuses or None,
        "operation": operation,
        "code": code,
        "metadata": {name: values[-1] for name, values in read_pairs(metadata, "--metadata").items()},
        "created_after": read_since(since, now) if since else None,
        "unknown": unknown,
    }
    jobs: list[Job] = []
    cursor: str | None = None
    while len(jobs) < limit:
        page = darkroom.list(**filters, limit=min(limit - len(jobs), MAX_PAGE), cursor=cursor)
        jobs += page.jobs
        if (cursor := page.next_cursor) is None:
            break
    if as_json:
        for job in jobs:
            print_json(JobView.of(job))
    elif jobs:
        console = out()
        show(job_lines(jobs, now, width_of(console)), console)
    else:
        note("no job matches")
