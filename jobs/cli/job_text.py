"""How jobs read on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from rich.text import Text

from ..attempt import Attempt, Recovery
from ..job import Job, Status
from ..report import Charged, Code
from .console import STATUS_STYLES, Cell, columns, facts, wrapped
from .words import attempt_cost, duration, moment, total_cost

_CHARGED_STYLES: Mapping[Charged, str] = {Charged.NO: "green", Charged.YES: "default", Charged.UNKNOWN: "yellow"}
_INDENT = "    "


def waits_for(job: Job, now: datetime, *, served: bool = True) -> str:
    """What a job that is not final waits for; `served` says whether a worker serves its operation."""
    later = duration((job.wake_at - now).total_seconds()) if job.wake_at and job.wake_at > now else ""
    match job.status:
        case Status.QUEUED if not served:
            return f"a worker that serves {job.operation}; none is running"
        case Status.QUEUED if later:
            return f"its next attempt, in {later}"
        case Status.QUEUED:
            return "a free worker"
        case Status.SUBMITTING:
            return "the answer of the provider"
        case Status.RUNNING if job.attempt and job.attempt.recovery is Recovery.CALLBACK:
            return "the callback of the provider"
        case Status.RUNNING:
            return f"the result; the provider is asked again in {later}" if later else "the result of the provider"
        case Status.STORING:
            return f"its images to be stored; retried in {later}" if later else "its images to be stored"
    return "nothing"


def job_details(job: Job, now: datetime, width: int, *, served: bool = True) -> Iterator[Cell]:
    """One job, whole: what it is, its ledger, its timeline and its images; URLs are on lines of their own."""
    yield from facts(_head(job, now, served), width)
    if job.attempts:
        yield from ("", Text("Ledger", style="bold"))
        for attempt in job.attempts:
            yield from _ledger_lines(attempt, width)
    yield from ("", Text("Timeline", style="bold"))
    for event in job.timeline:
        times = "" if event.times == 1 else f" ({event.times} times)"
        first = f"{(event.at - job.created_at).total_seconds():8.2f} s  "
        yield from wrapped(event.what + times, width, first, len(first))
    if job.artifacts or job.missing:
        yield from ("", Text("Images", style="bold"))
    for item in job.artifacts:
        yield f"  {item.index}  {item.width}x{item.height} {item.content_type}, {item.size:,} bytes"
        yield f"{_INDENT} {item.url() if item.is_readable else item.key}"
    for missing in job.missing:
        yield from wrapped(f"missing: {missing.code}: {missing.message}", width, f"  {missing.index}  ", 5)


def failure_code(job: Job) -> str:
    """Why the job failed; `outcome_unknown` also marks a job with an attempt that may have been charged."""
    if job.error:
        return job.error.code.value
    return Code.OUTCOME_UNKNOWN.value if job.has_unknown else ""


def job_lines(
    jobs: Sequence[Job],
    now: datetime,
    width: int,
    *,
    last: tuple[str, Callable[[Job], str]] = ("code", failure_code),
) -> list[Text]:
    """A line for each job; two where the terminal is too narrow for one. `last` is the header and text of the last column."""
    header = ("job", "operation", "status", "age", "images", "cost", last[0])
    rows: list[tuple[Cell, ...]] = [
        (
            job.id,
            job.operation,
            Text(job.status.value, style=STATUS_STYLES[job.status]),
            duration((now - job.created_at).total_seconds()),
            f"{len(job.artifacts)}/{job.images_expected}",
            total_cost(job.attempts),
            last[1](job),
        )
        for job in jobs
    ]
    if not rows:
        return []
    lines = columns(rows, header)
    if max(map(len, lines)) <= width:
        return lines
    narrow = []
    for job_id, operation, status, age, images, cost, end in rows:
        narrow.append(Text.assemble(job_id, "  ", operation, "  ", status))
        details = f"{age} ago, {images} images, cost: {cost}{f', {end}' if end else ''}"
        narrow += [Text(line, style="dim") for line in wrapped(details, width, _INDENT, len(_INDENT))]
    return narrow


def _head(job: Job, now: datetime, served: bool) -> Iterator[tuple[str, Cell]]:
    yield "job", job.id
    yield "operation", job.operation
    yield "status", Text(job.status.value, style=STATUS_STYLES[job.status])
    if not job.status.is_final:
        yield "waits for", waits_for(job, now, served=served)
    yield "created", f"{moment(job.created_at)}, {duration((now - job.created_at).total_seconds())} ago"
    if job.finished_at:
        yield (
            "finished",
            f"{moment(job.finished_at)}, after {duration((job.finished_at - job.created_at).total_seconds())}",
        )
    else:
        yield "deadline", moment(job.deadline_at)
    yield "images", f"{len(job.artifacts)} of {job.images_expected} stored"
    yield "cost", total_cost(job.attempts)
    if job.error:
        yield "error", f"{job.error.code}: {job.error.message}"
    for name, value in job.metadata.items():
        yield "metadata", f"{name}={value}"


def _ledger_lines(attempt: Attempt, width: int) -> Iterator[Cell]:
    """An attempt: its outcome and its cost, then when it was sent, then why it failed."""
    numbers = attempt.number if attempt.first_number is None else f"{attempt.first_number}-{attempt.number}"
    sent = "" if attempt.times == 1 else f", sent {attempt.times} times"
    yield Text.assemble(
        f"  {numbers}  {attempt.outcome}{sent}; charged: ",
        (attempt.charged.value, _CHARGED_STYLES[attempt.charged]),
        f"; cost: {attempt_cost(attempt)}",
    )
    took = f", took {duration((attempt.ended_at - attempt.started_at).total_seconds())}" if attempt.ended_at else ""
    external_id = f", {attempt.provider}'s id {attempt.external_id}" if attempt.external_id else ""
    yield from wrapped(f"{moment(attempt.started_at)}{took}{external_id}", width, _INDENT + " ", 5)
    if attempt.code:
        yield from wrapped(f"{attempt.code}: {attempt.message}", width, _INDENT + " ", 5)
