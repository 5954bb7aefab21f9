"""`darkroom cancel` and `darkroom retry`."""

from __future__ import annotations

import click

from .. import darkroom
from ..job import Job, Status
from ..report import Charged
from ..view import JobView
from .console import print_json


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def cancel(job_id: str, as_json: bool) -> int:
    """Cancel a job that still waits for a provider. Exit 0 only if it is canceled now."""
    job = darkroom.current().cancel(job_id)
    if as_json:
        print_json(JobView.of(job))
    else:
        click.echo(_canceled(job))
    return 0 if job.status is Status.CANCELED else 1


def _canceled(job: Job) -> str:
    if job.status is Status.STORING:
        return f"too late: the provider has rendered job {job.id}, its pictures are being stored"
    if job.status is not Status.CANCELED:
        return f"nothing to cancel: job {job.id} is {job.status}"
    if any(attempt.charged is not Charged.NO for attempt in job.attempts):
        return f"job {job.id} is canceled; it had been sent, so the provider may charge it all the same"
    return f"job {job.id} is canceled; nothing was charged"


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--may-charge-again", is_flag=True, help="Accept that the provider may charge a second time.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def retry(job_id: str, may_charge_again: bool, as_json: bool) -> None:
    """Try a failed or canceled job again.

    What was rendered and only not stored is fetched again, and nothing is submitted. Where an earlier attempt was charged, or may
    have been, a new one needs --may-charge-again.
    """
    job = darkroom.current().retry(job_id, may_charge_again=may_charge_again)
    if as_json:
        print_json(JobView.of(job))
    else:
        again = "its pictures are fetched again, nothing is submitted" if job.pending else "it is submitted again"
        click.echo(f"job {job.id}: {again}")
