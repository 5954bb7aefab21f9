"""`darkroom watch`."""

from __future__ import annotations

import click

from ..darkroom import current
from ..job import Status
from ..view import JobView
from .console import note, print_json
from .progress import follow

#: jobs that are followed when no id is given
LIMIT = 50


@click.command(short_help="Follow jobs until all are final.")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as JSON when all are final, one a line.")
def watch(job_ids: tuple[str, ...], as_json: bool) -> int:
    """Follow jobs until all are final; without an ID, those that are not final now. Exit 0 only if all succeeded."""
    darkroom = current()
    ids = [darkroom.get(job_id).id for job_id in job_ids]
    if not ids:
        unfinished = [status for status in Status if not status.is_final]
        ids = [job.id for job in reversed(darkroom.list(unfinished, limit=LIMIT).jobs)]
    if not ids:
        note("every job is final")
    jobs = follow(darkroom, ids)
    if as_json:
        for job_id in jobs:
            print_json(JobView.of(darkroom.get(job_id)))
    return 0 if all(job.status is Status.SUCCEEDED for job in jobs.values()) else 1
