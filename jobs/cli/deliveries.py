"""`darkroom deliveries`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
from rich.text import Text

from ..darkroom import current
from ..delivery import Delivery
from ..job import Job
from ..view import JobView
from .console import Cell, out, print_json, show, width_of, wrapped
from .words import duration, moment


@click.command(short_help="Show the webhooks about a job.")
@click.argument("job_id", metavar="JOB")
@click.option("--json", "as_json", is_flag=True, help="Print the deliveries as JSON, one a line.")
def deliveries(job_id: str, as_json: bool) -> None:
    """Show the webhooks about a job: each delivery, and how its latest tries ended."""
    darkroom = current()
    job = darkroom.get(job_id)
    if as_json:
        for delivery in JobView.of(job).deliveries:
            print_json(delivery)
    elif job.deliveries:
        now, console = darkroom.repository.now(), out()
        show([f"to {JobView.of(job).webhook_url}"], console)
        for one in job.deliveries:
            show(_lines(one, now, width_of(console)), console)
    else:
        click.echo(f"job {job.id} {_reason(job)}")


def _reason(job: Job) -> str:
    """Why a job has sent no webhook yet."""
    if job.webhook_url is None:
        return "sends no webhooks: it was enqueued without a webhook_url"
    *others, last = [event.value for event in job.webhook_events] or ["nothing"]
    events = f"{', '.join(others)} or {last}" if others else last
    return f"has sent no webhook yet: it is {job.status}, and sends one when it is {events}"


def _lines(delivery: Delivery, now: datetime, width: int) -> Iterator[Cell]:
    times = f"{delivery.tries} {'try' if delivery.tries == 1 else 'tries'}"
    if delivery.delivered_at is not None:
        state, style = f"delivered, {times}", "green"
    elif delivery.next_at is None:
        state, style = f"given up, {times}", "red"
    else:
        state, style = f"next try in {duration((delivery.next_at - now).total_seconds())}, {times} so far", "yellow"
    yield ""
    yield Text.assemble((delivery.id, "bold"), f"  {delivery.event}")
    yield Text(f"    {state}", style=style)
    for one in delivery.log:
        answer = str(one.status) if one.status is not None else one.problem or "no answer"
        first = f"    {moment(one.at)}  "
        yield from wrapped(answer, width, first, len(first))
