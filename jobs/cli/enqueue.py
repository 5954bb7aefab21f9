"""`darkroom enqueue`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import darkroom, providers
from ..job import Job, OnUnknown, Status
from ..view import JobView
from .console import note, out, print_json, warn
from .params import read_pairs, read_request
from .show import detail


def _operations(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in providers.operation_names() if name.startswith(incomplete)]


@click.command()
@click.argument("operation", shell_complete=_operations)
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A field; an image as @file. Repeat for lists.")
@click.option("--params", type=click.Path(path_type=Path), help="A JSON file of fields; -p overrides.")
@click.option("--idempotency-key", default="", help="The same key again returns the first job.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Kept on the job; may be repeated.")
@click.option("--deadline", type=float, metavar="SECONDS", help="End of waiting; default: the operation's own.")
@click.option(
    "--on-unknown",
    type=click.Choice([word.value for word in OnUnknown]),
    default=OnUnknown.FAIL.value,
    show_default=True,
)
@click.option("--keep-late", is_flag=True, help="Keep the pictures of a canceled job that come after all.")
@click.option("--wait", is_flag=True, help="Return when the job is final; exit 0 only if it succeeded.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def enqueue(
    operation: str,
    pairs: tuple[str, ...],
    params: Path | None,
    idempotency_key: str,
    metadata: tuple[str, ...],
    deadline: float | None,
    on_unknown: str,
    keep_late: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Enqueue one job and print its id.

    \b
    darkroom enqueue aimlapi.reve-remix -p prompt="a lake at dawn" -p image_urls=@photo.png --wait
    """
    request = read_request(operation, pairs, params)
    house = darkroom.current()
    job = house.enqueue(
        request,
        idempotency_key=idempotency_key,
        metadata=_metadata(metadata),
        deadline_seconds=deadline,
        on_unknown=OnUnknown(on_unknown),
        keep_late=keep_late,
    )
    if job.operation not in house.repository.served_operations():
        warn(f"no worker serves {job.operation} at this moment; the job waits until {job.deadline_at:%H:%M:%S} UTC")
    if wait:
        job = house.wait(job.id)
    _print(job, wait, as_json)
    return 0 if not wait or job.status is Status.SUCCEEDED else 1


def _metadata(pairs: tuple[str, ...]) -> dict[str, Any]:
    return {name: _value(texts[-1]) for name, texts in read_pairs(pairs, "--metadata").items()}


def _value(text: str) -> Any:
    """Objects and lists are read as JSON; the rest is text, so that an id of digits stays one."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print(job: Job, waited: bool, as_json: bool) -> None:
    if as_json:
        print_json(JobView.of(job))
    elif waited:
        out().print(detail(job))
    else:
        click.echo(job.id)
        note(f"follow it: darkroom watch {job.id}")
