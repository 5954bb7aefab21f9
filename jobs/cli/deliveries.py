"""`darkroom deliveries` and `darkroom redeliver`: what a job told its own webhook, and telling it again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
from rich.console import Group
from rich.text import Text

from .. import darkroom
from ..delivery import Delivery, Try
from ..job import Job
from ..view import JobView
from .console import Cell, out, print_json, table


@click.command(short_help="Show what a job told its webhook.")
@click.argument("job_id", metavar="JOB")
@click.option("--json", "as_json", is_flag=True, help="Print the deliveries as JSON, one a line.")
def deliveries(job_id: str, as_json: bool) -> None:
    """Show what a job told its webhook: each delivery, and how its latest tries ended."""
    house = darkroom.current()
    job = house.get(job_id)
    if as_json:
        for delivery in JobView.of(job).deliveries:
            print_json(delivery)
    elif not job.deliveries:
        click.echo(_nothing(job))
    else:
        now = house.repository.now()
        out().print(
            Group(Text(f"to {JobView.of(job).webhook_url}"), Text(), *(_shown(one, now) for one in job.deliveries))
        )


@click.command(short_help="Deliver to a job's webhook again.")
@click.argument("job_id", metavar="JOB")
@click.argument("delivery_id", metavar="[DELIVERY]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the deliveries as JSON, one a line.")
def redeliver(job_id: str, delivery_id: str | None, as_json: bool) -> None:
    """Deliver again: one delivery of the job, or all of them, whatever became of them.

    The message keeps its id, so that a receiver can tell that it is the same.
    """
    job = darkroom.current().redeliver(job_id, delivery_id)
    again = [delivery for delivery in job.deliveries if delivery_id in (None, delivery.id)]
    if as_json:
        for delivery in JobView.of(job).deliveries:
            print_json(delivery)
    else:
        click.echo(f"job {job.id}: {', '.join(delivery.id for delivery in again)} will be delivered again")


def _nothing(job: Job) -> str:
    if job.webhook_url is None:
        return f"job {job.id} tells nobody: it was enqueued without a webhook_url"
    events = ", ".join(job.webhook_events) or "nothing"
    return f"job {job.id} has told nothing yet; it is {job.status}, and it tells of: {events}"


def _shown(delivery: Delivery, now: datetime) -> Group:
    head = Text.assemble((delivery.id, "bold"), f"  {delivery.event}  ", _state(delivery, now))
    if not delivery.log:
        return Group(head, Text())
    return Group(head, table(("at", "answer"), [tuple(_try_cells(one)) for one in delivery.log]), Text())


def _state(delivery: Delivery, now: datetime) -> tuple[str, str]:
    times = f"{delivery.tries} {'try' if delivery.tries == 1 else 'tries'}"
    if delivery.delivered_at is not None:
        return f"delivered, {times}", "green"
    if delivery.next_at is None:
        return f"given up, {times}", "red"
    return f"next try in {max((delivery.next_at - now).total_seconds(), 0):.0f} s, {times} so far", "yellow"


def _try_cells(one: Try) -> Iterator[Cell]:
    yield f"{one.at:%Y-%m-%d %H:%M:%S} UTC"
    yield Text(
        str(one.status) if one.status is not None else one.problem or "", style="green" if one.is_accepted else "red"
    )
