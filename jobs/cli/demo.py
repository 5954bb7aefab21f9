"""`darkroom demo`: real jobs on this machine alone; the sandbox plays the providers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.text import Text

from .. import providers
from ..embedded.stack import Stack, without_password
from ..job import Job
from ..settings import environment
from .console import STATUS_STYLES, Cell, columns, complain, ending_on_signals, note, print_json, show, warn
from .demo_requests import demo_requests
from .demo_result import Result, arrivals, unreadable_keys
from .progress import follow
from .words import duration

#: how long the sandbox works on a job, in seconds
LATENCY = "0.5-2.5"
#: how long all jobs together may take, in seconds
DEADLINE_SECONDS = 60.0
#: the settings of the environment that the demo uses
_USED = ("DARKROOM_REDIS_URL", "DARKROOM_BROKER_URL")


@click.command(short_help="Run jobs of every operation on this machine, without any key.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Keep everything there; default: a new folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON last.")
def demo(folder: Path | None, as_json: bool) -> int:
    """Run jobs of every operation that the sandbox plays on this machine, without any key.

    Exit 0 only if every job succeeded and every image was stored and read back.
    """
    chosen = folder or Path(tempfile.mkdtemp(prefix="darkroom-demo-"))
    given = {name: value for name, value in environment().items() if name in _USED and value}
    with ending_on_signals():
        note("starting Redis, the sandbox, the receiver and a worker")
        try:
            with Stack(chosen, given, sandbox_options=("--latency", LATENCY)) as stack:
                _introduce(stack)
                jobs = _run(stack)
                unreadable = [key for job in jobs for key in unreadable_keys(stack.darkroom, job)]
                result = Result(jobs, arrivals(stack, jobs), unreadable)
        except KeyboardInterrupt:
            if folder is None:
                shutil.rmtree(chosen, ignore_errors=True)
            raise
    show(_result_lines(result))
    for job in (job for job in jobs if job.error):
        complain(f"job {job.id}: {job.error.code}: {job.error.message}" if job.error else "")
    for key in result.unreadable:
        complain(f"{key} is not in the storage as the job's record says")
    show(["", f"{result.images} images stored, read back and compared; they are in", str(stack.images)])
    if not result.is_good:
        show(["the logs of all processes are in", str(stack.logs)])
    elif folder is None:
        stack.delete_all_but_images()
    if as_json:
        print_json(result.summary())
    return 0 if result.is_good else 1


def _introduce(stack: Stack) -> None:
    note(f"receiver at {stack.url}, sandbox at {stack.sandbox_url}")
    note(f"Redis at {without_password(stack.settings.redis_url)}")
    if not stack.is_durable:
        warn("NOT DURABLE: fakeredis is used instead of Redis; install redis-server to use a real one")
    for name in providers.names():
        if name not in stack.played:
            note(
                f"left out: {', '.join(providers.provider(name).operations)}, because the sandbox does not play {name}"
            )


def _run(stack: Stack) -> Sequence[Job]:
    darkroom = stack.darkroom
    requests = demo_requests(name for name in providers.names() if name in stack.played)
    ids = [darkroom.enqueue(request, deadline_seconds=DEADLINE_SECONDS).id for request in requests]
    try:
        follow(darkroom, ids, timeout=DEADLINE_SECONDS + 15, transient=True)
    except TimeoutError as error:
        complain(str(error))
    return [darkroom.get(job_id) for job_id in ids]


def _result_lines(result: Result) -> Iterator[Cell]:
    """The jobs by operation: status, how the result arrived, stored images and duration."""
    rows = [
        (
            f"  {job.id}",
            Text(job.status.value, style=STATUS_STYLES[job.status]),
            result.arrivals[job.id],
            f"{len(job.artifacts)}/{job.images_expected}",
            duration(((job.finished_at or job.updated_at) - job.created_at).total_seconds()),
        )
        for job in result.jobs
    ]
    if not rows:
        return
    header, *lines = columns(rows, ("  job", "status", "by", "images", "took"))
    yield header
    operation = ""
    for job, line in zip(result.jobs, lines, strict=True):
        if job.operation != operation:
            operation = job.operation
            yield operation
        yield line
