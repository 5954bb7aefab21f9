"""`darkroom retry`."""

from __future__ import annotations

import click

from ..darkroom import current
from ..view import JobView
from .console import print_json


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--may-charge-again", is_flag=True, help="Accept that the provider may charge a second time.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def retry(job_id: str, may_charge_again: bool, as_json: bool) -> None:
    """Retry a failed or canceled job.

    Images that were rendered but not stored are fetched again, and nothing is submitted. A new attempt needs --may-charge-again
    if an earlier one was charged or may have been.
    """
    job = current().retry(job_id, may_charge_again=may_charge_again)
    if as_json:
        print_json(JobView.of(job))
    elif job.pending:
        click.echo(f"job {job.id}: its images are fetched again, nothing is submitted")
    else:
        click.echo(f"job {job.id}: a new attempt is sent")
