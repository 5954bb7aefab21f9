"""`darkroom cancel`."""

from __future__ import annotations

import click

from ..darkroom import current
from ..job import Status
from ..report import Charged
from ..view import JobView
from .console import print_json


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def cancel(job_id: str, as_json: bool) -> int:
    """Cancel a job that still waits for its provider. Exit 0 only if it is canceled now."""
    job = current().cancel(job_id)
    if as_json:
        print_json(JobView.of(job))
    elif job.status is Status.STORING:
        click.echo(f"too late: the provider has rendered job {job.id}, and its images are being stored")
    elif job.status is not Status.CANCELED:
        click.echo(f"nothing to cancel: job {job.id} is {job.status}")
    elif any(attempt.charged is not Charged.NO for attempt in job.attempts):
        click.echo(f"job {job.id} is canceled; it had been sent, so the provider may still charge for it")
    else:
        click.echo(f"job {job.id} is canceled; nothing was charged")
    return 0 if job.status is Status.CANCELED else 1
