"""`darkroom get`."""

from __future__ import annotations

import click

from ..darkroom import current
from ..view import JobView
from .console import out, print_json, show, width_of
from .job_text import job_details


@click.command(short_help="Show one job: status, cost, ledger, timeline and images.")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def get(job_id: str, as_json: bool) -> None:
    """Show one job: what it waits for, what it cost, its ledger, its timeline and its images."""
    darkroom = current()
    job = darkroom.get(job_id)
    if as_json:
        print_json(JobView.of(job))
        return
    served = job.status.is_final or job.operation in darkroom.repository.served_operations()
    console = out()
    show(job_details(job, darkroom.repository.now(), width_of(console), served=served), console)
