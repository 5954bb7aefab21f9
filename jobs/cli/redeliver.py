"""`darkroom redeliver`."""

from __future__ import annotations

import click

from ..darkroom import current
from ..view import JobView
from .console import print_json


@click.command(short_help="Send the webhooks about a job again.")
@click.argument("job_id", metavar="JOB")
@click.argument("delivery_id", metavar="[DELIVERY]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the deliveries as JSON, one a line.")
def redeliver(job_id: str, delivery_id: str | None, as_json: bool) -> None:
    """Send the webhooks about a job again: one delivery, or all of them, even if they were delivered.

    Each keeps its id, so that the endpoint can recognize a webhook that it has received before.
    """
    job = current().redeliver(job_id, delivery_id)
    if as_json:
        for delivery in JobView.of(job).deliveries:
            print_json(delivery)
        return
    again = [delivery.id for delivery in job.deliveries if delivery_id in (None, delivery.id)]
    click.echo(f"job {job.id}: {', '.join(again)} will be delivered again")
