"""`darkroom enqueue`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import providers
from ..darkroom import current
from ..errors import FieldError, InvalidRequest
from ..job import OnUnknown, Status
from ..new_job import NewJob, option_errors
from ..request import Request
from ..settings import Settings
from ..view import JobView
from .console import Names, note, out, print_json, show, warn, width_of
from .job_text import job_details
from .pairs import read_pairs
from .progress import follow
from .request_arguments import read_request


def complete_operation(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of operations that begin like this, for the shell."""
    return [CompletionItem(name) for name in providers.operation_names() if name.startswith(incomplete)]


@click.command()
@click.argument("operation", shell_complete=complete_operation)
@click.option(
    "-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A field; a file as @FILE. Repeat it for a list."
)
@click.option("--params", type=click.Path(path_type=Path), metavar="FILE", help="A JSON file of fields; -p overrides.")
@click.option("--idempotency-key", metavar="KEY", help="The same key again returns the first job.")
@click.option(
    "--metadata", multiple=True, metavar="KEY=VALUE", help="Your own data, kept with the job; may be repeated."
)
@click.option("--deadline", type=float, metavar="SECONDS", help="How long to wait for the provider.")
@click.option(
    "--on-unknown",
    type=Names([word.value for word in OnUnknown]),
    default=OnUnknown.FAIL.value,
    show_default=True,
    help="What to do when it is not known whether an attempt was charged.",
)
@click.option("--keep-late", is_flag=True, help="Store images that arrive after the job was canceled.")
@click.option("--webhook-url", metavar="URL", help="Where webhooks are sent; default: DARKROOM_WEBHOOK_URL.")
@click.option("--webhook-events", metavar="STATUSES", help="Which statuses send one, for example succeeded,failed.")
@click.option("--wait", is_flag=True, help="Return when the job is final; exit 0 only if it succeeded.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def enqueue(
    operation: str, pairs: tuple[str, ...], params: Path | None, wait: bool, as_json: bool, **options: Any
) -> int:
    """Enqueue one job and print its id. `darkroom operations` shows the operations and their fields.

    \b
    darkroom enqueue aimlapi.reve-remix -p prompt="a lake at dawn" \\
        -p image_urls=@photo.png --wait
    """
    darkroom = current()
    new = _read_new_job(operation, pairs, params, options, darkroom.settings)
    job = darkroom.enqueue(**vars(new), idempotency_key=options["idempotency_key"])
    if job.operation not in darkroom.repository.served_operations():
        warn(f"no worker serves {job.operation} now; the job waits for one until {job.deadline_at:%H:%M:%S} UTC")
    if wait:
        follow(darkroom, [job.id], transient=True)
        job = darkroom.get(job.id)
    if as_json:
        print_json(JobView.of(job))
    elif wait:
        console = out()
        show(job_details(job, darkroom.repository.now(), width_of(console)), console)
    else:
        click.echo(job.id)
        note(f"to follow it: darkroom watch {job.id}")
    return 0 if not wait or job.status is Status.SUCCEEDED else 1


def _read_new_job(
    operation: str, pairs: tuple[str, ...], params: Path | None, given: Mapping[str, Any], settings: Settings
) -> NewJob:
    """The new job of a command line. Raises InvalidRequest with every fault."""
    events = given["webhook_events"]
    options = {
        "deadline_seconds": given["deadline"],
        "on_unknown": given["on_unknown"],
        "keep_late": given["keep_late"],
        "webhook_url": given["webhook_url"],
        "webhook_events": events.split(",") if events else None,
    }
    request: Request | None = None
    errors: list[FieldError] = []
    try:
        request = read_request(operation, pairs, params)
    except InvalidRequest as error:
        errors += error.errors
    try:
        metadata = read_pairs(given["metadata"], "--metadata")
        options["metadata"] = {name: read_value(values[-1]) for name, values in metadata.items()}
    except InvalidRequest as error:
        errors += error.errors
    if errors or request is None:
        raise InvalidRequest(*errors, *option_errors(options, settings))
    return NewJob(request, **options)


def read_value(text: str) -> Any:
    """A value of the metadata: objects and lists are read as JSON, anything else is text, so that `0017` stays as it is."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
