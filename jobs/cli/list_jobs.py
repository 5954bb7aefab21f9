"""`darkroom list`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import click

from .. import darkroom
from ..darkroom import Darkroom
from ..errors import FieldError, InvalidRequest
from ..job import Job, Status
from ..report import Code
from ..view import JobView
from .console import note, out, print_json, show, width_of
from .job_text import job_lines
from .pairs import read_pairs
from .words import read_moment

_PAGE = 200


@click.command("list", short_help="List the latest jobs.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in Status]),
    help="Only jobs in this status; may be repeated.",
)
@click.option("--operation", metavar="NAME", help="Only jobs of this operation.")
@click.option(
    "--code",
    type=click.Choice([code.value for code in Code]),
    metavar="CODE",
    help="Only jobs that failed with this code.",
)
@click.option("--since", metavar="TIME", help="Only jobs enqueued since: 30m, 2h, 7d, or 2026-11-26T08:00 (UTC).")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Only jobs with this metadata; may be repeated.")
@click.option("--unknown", is_flag=True, help="Only jobs with an attempt whose outcome is unknown.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Jobs at most.")
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
    house = darkroom.current()
    now = house.repository.now()
    filters = {
        "status": statuses or None,
        "operation": operation,
        "code": code,
        "metadata": {name: values[-1] for name, values in read_pairs(metadata, "--metadata").items()},
        "created_after": _moment(since, now) if since else None,
        "unknown": unknown,
    }
    jobs = list(islice(_matching(house, filters), limit))
    if as_json:
        for job in jobs:
            print_json(JobView.of(job))
    elif jobs:
        console = out()
        show(job_lines(jobs, now, width_of(console)), console)
    else:
        note("no job matches")


def _matching(house: Darkroom, filters: dict[str, Any]) -> Iterator[Job]:
    cursor: str | None = None
    while True:
        page = house.list(**filters, limit=_PAGE, cursor=cursor)
        yield from page.jobs
        if (cursor := page.next_cursor) is None:
            return


def _moment(text: str, now: datetime) -> datetime:
    try:
        at = read_moment(text)
    except ValueError:
        message = (
            f"{text[:80]!r} is neither an age, for example 30m, 2h or 7d, nor a time, for example 2026-11-26T08:00"
        )
        raise InvalidRequest(FieldError("--since", message)) from None
    return now - at if isinstance(at, timedelta) else at
