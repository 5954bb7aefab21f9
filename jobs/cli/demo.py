"""`darkroom demo`: a real run on this machine alone, the sandbox in the vendors' place."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import httpx
from PIL import Image, ImageDraw
from pydantic.fields import FieldInfo

from .. import providers
from ..attempt import Recovery
from ..darkroom import Darkroom
from ..embedded.stack import Stack, without_password
from ..errors import StorageError
from ..job import Job, Status
from ..request import Request
from ..settings import environment
from .console import complain, ending_on_signals, err, images_cell, note, out, print_json, status_cell, table, warn
from .follow import follow

#: jobs of each operation: its example as it stands, and with one switch after the other turned
JOBS_PER_OPERATION = 3
#: how long the sandbox works on a job
LATENCY = "0.5-2.5"
#: how long all of them may take
DEADLINE_SECONDS = 60.0
#: of the pictures that are sent along, pixels
_SIDE = 384
#: the settings of the environment that the demo heeds
_HEEDED = ("DARKROOM_REDIS_URL", "DARKROOM_BROKER_URL")


@click.command(short_help="Run jobs of all operations on this machine, without any key.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Keep everything there; default: a new one."
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON last.")
def demo(folder: Path | None, as_json: bool) -> int:
    """Run jobs of all operations on this machine, without any key. Exit 0 only if every picture was stored and read back."""
    chosen = folder or Path(tempfile.mkdtemp(prefix="darkroom-demo-"))
    given = {name: value for name, value in environment().items() if name in _HEEDED and value}
    with ending_on_signals():
        note("starting Redis, the sandbox, the receiver and a worker")
        try:
            with Stack(chosen, given, sandbox_options=("--latency", LATENCY)) as stack:
                _introduce(stack)
                jobs = _run(stack)
                result = _judged(stack, jobs)
        except KeyboardInterrupt:
            if folder is None:
                shutil.rmtree(chosen, ignore_errors=True)
            raise
    _conclude(stack, result, tidy=folder is None)
    if as_json:
        print_json(result.summary())
    return 0 if result.good else 1


@dataclass(frozen=True)
class Result:
    """What the demo ended with."""

    jobs: Sequence[Job]
    #: how each job's result came in: `answer`, `poll` or `callback`
    ways: Mapping[str, str]
    #: keys of stored images that were not read back as they were recorded
    broken: Sequence[str]

    @property
    def good(self) -> bool:
        """Whether every job succeeded whole and every image was read back."""
        whole = (job.status is Status.SUCCEEDED and not job.missing and job.artifacts for job in self.jobs)
        return all(whole) and not self.broken

    def summary(self) -> dict[str, Any]:
        """The line of `--json`."""
        succeeded = [job for job in self.jobs if job.status is Status.SUCCEEDED]
        asked, had = (Counter(job.operation for job in some) for some in (self.jobs, succeeded))
        return {
            "jobs": len(self.jobs),
            "succeeded": len(succeeded),
            "images": sum(len(job.artifacts) for job in self.jobs) - len(self.broken),
            "operations": {name: {"jobs": count, "succeeded": had[name]} for name, count in asked.items()},
        }


# Requests ---------------------------------------------------------------------------------------------------------


def requests() -> Iterator[Request]:
    """Requests of every operation, out of the examples in its own model."""
    pictures = _pictures()
    for name in providers.operation_names():
        model = providers.operation(name).request
        params = _example(model) | _images(model, pictures)
        yield from (model.model_validate(params | turned) for turned in _turns(model, params))


def _example(model: type[Request]) -> dict[str, Any]:
    extra = model.model_config.get("json_schema_extra")
    examples = extra.get("examples") if isinstance(extra, dict) else None
    return dict(examples[0]) if isinstance(examples, list) and isinstance(examples[0], dict) else {}


def _images(model: type[Request], pictures: Iterator[bytes]) -> dict[str, Any]:
    """A picture for each image field; two where the example has a list."""
    example = _example(model)
    return {
        name: [next(pictures), next(pictures)] if isinstance(example.get(name), list) else next(pictures)
        for name in model.image_rules
    }


def _turns(model: type[Request], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Nothing changed, then one two-way switch turned at a time: so each answer shape of a vendor is met."""
    turned = [{name: other} for name, field in model.model_fields.items() for other in _other(field, params.get(name))]
    return ([{}, *reversed(turned)] + [{}] * JOBS_PER_OPERATION)[:JOBS_PER_OPERATION]


def _other(field: FieldInfo, now: Any) -> list[Any]:
    """The other position of a field that has two."""
    value = field.get_default() if now is None else now
    positions: tuple[Any, ...] = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if field.annotation is bool:
        positions = (False, True)
    return [other for other in positions if other != value] if len(positions) == 2 else []


def _pictures() -> Iterator[bytes]:
    """Pictures that can be told apart, without end."""
    number = 0
    while True:
        number += 1
        yield _picture(number)


def _picture(number: int) -> bytes:
    hue = (number * 47) % 256
    image = Image.merge(
        "HSV",
        (
            Image.new("L", (_SIDE, _SIDE), hue),
            Image.linear_gradient("L").resize((_SIDE, _SIDE)),
            Image.linear_gradient("L").rotate(90).resize((_SIDE, _SIDE)),
        ),
    ).convert("RGB")
    ImageDraw.Draw(image).text((_SIDE // 3, _SIDE // 3), str(number), fill="white", font_size=_SIDE // 3)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# The run ----------------------------------------------------------------------------------------------------------


def _introduce(stack: Stack) -> None:
    note(
        f"receiver at {stack.url}, sandbox at {stack.sandbox_url}, Redis at {without_password(stack.settings.redis_url)}"
    )
    if not stack.durable:
        warn("NOT DURABLE: fakeredis stands in for Redis; install redis-server to have a real one")


def _run(stack: Stack) -> Sequence[Job]:
    house = stack.darkroom
    enqueued = [house.enqueue(request, deadline_seconds=DEADLINE_SECONDS) for request in requests()]
    ids = [job.id for job in enqueued]
    try:
        follow(house, ids, timeout=DEADLINE_SECONDS + 15, transient=True)
    except TimeoutError as error:
        complain(str(error))
    return [house.get(job_id) for job_id in ids]


def _judged(stack: Stack, jobs: Sequence[Job]) -> Result:
    broken = [key for job in jobs for key in unreadable(stack.darkroom, job)]
    return Result(jobs, _ways(stack, jobs), broken)


def unreadable(house: Darkroom, job: Job) -> Iterator[str]:
    """The keys of the job's images that are not in storage as the record has them."""
    for artifact in job.artifacts:
        try:
            same = hashlib.sha256(house.storage.get(artifact.key)).hexdigest() == artifact.sha256
        except StorageError:
            same = False
        if not same:
            yield artifact.key


def _ways(stack: Stack, jobs: Iterable[Job]) -> dict[str, str]:
    called_back = _called_back(stack)
    return {job.id: _way(job, called_back) for job in jobs}


def _way(job: Job, called_back: Mapping[str, float]) -> str:
    """How the result came in: with the answer, by a callback, or by a poll where none was before it."""
    if not any(event.what.startswith("running") for event in job.timeline) or job.attempt is None:
        return "answer"
    if not job.attempt.polled:
        return "callback"
    at = called_back.get(job.attempt.external_id or "")
    known = next((event.at.timestamp() for event in job.timeline if event.what.startswith("storing")), 0.0)
    return "callback" if job.attempt.recovery is Recovery.CALLBACK and at is not None and at <= known + 0.25 else "poll"


def _called_back(stack: Stack) -> dict[str, float]:
    """When the sandbox had an answer to the last callback of a task, in seconds since 1970."""
    ledger = httpx.get(f"{stack.sandbox_url}/_sandbox/ledger?digests=0", trust_env=False, timeout=10).json()
    return {
        submission["task_id"]: posted["at"]
        for submission in ledger["submissions"]
        for posted in submission["callbacks"]
        if posted["status"] == 200
    }


# The end ----------------------------------------------------------------------------------------------------------


def _conclude(stack: Stack, result: Result, *, tidy: bool) -> None:
    console = out()
    columns = ("job", "operation", "status", "came by", "images", "seconds", "where")
    console.print(table(columns, (_row(job, result.ways[job.id]) for job in result.jobs)), soft_wrap=False)
    for job in result.jobs:
        if job.error:
            err().print(f"{job.id}: {job.error.code}: {job.error.message}", style="red", markup=False, soft_wrap=True)
    for key in result.broken:
        err().print(f"{key} is not in storage as the record has it", style="red", markup=False, soft_wrap=True)
    read = sum(len(job.artifacts) for job in result.jobs) - len(result.broken)
    console.print(f"{read} images stored, read back and compared; they lie in {stack.images}", soft_wrap=True)
    if tidy and result.good:
        _keep_only_pictures(stack)
    elif not result.good:
        console.print(f"what the processes said lies in {stack.logs}", soft_wrap=True)


def _row(job: Job, way: str) -> tuple[Any, ...]:
    took = f"{((job.finished_at or job.updated_at) - job.created_at).total_seconds():.1f}"
    where = Path(job.artifacts[0].key).parent if job.artifacts else "-"
    return job.id, job.operation, status_cell(job), way, images_cell(job), took, str(where)


def _keep_only_pictures(stack: Stack) -> None:
    for entry in stack.folder.iterdir():
        if entry == stack.images:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
