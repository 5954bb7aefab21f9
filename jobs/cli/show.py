"""How jobs look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..attempt import Attempt
from ..job import Job
from ..report import Charged, Cost
from .console import Cell, images_cell, seconds_cell, status_cell, table

_CHARGED_STYLES: Mapping[Charged, str] = {Charged.NO: "green", Charged.YES: "default", Charged.UNKNOWN: "yellow"}


def detail(job: Job, *, served: bool = True) -> RenderableType:
    """One job, whole: what it is, its ledger, its timeline and its pictures."""
    parts: list[RenderableType] = [_head(job)]
    if not served and not job.status.final:
        parts.append(Text("No worker serves this operation at this moment; the job waits.", style="yellow"))
    parts.extend(part for part in (_ledger(job), _timeline(job), _pictures(job), _missing(job)) if part is not None)
    return Group(*(row for part in parts for row in (part, Text())))


def listing(jobs: Iterable[Job], now: datetime) -> Table:
    """Jobs, a line each."""
    columns = ("job", "operation", "status", "images", "attempt", "seconds", "")
    return table(columns, (_line(job, now) for job in jobs))


def _line(job: Job, now: datetime) -> Iterator[Cell]:
    yield job.id
    yield job.operation
    yield status_cell(job)
    yield images_cell(job)
    yield str(job.attempt.number if job.attempt else 0)
    yield seconds_cell(job, now)
    yield _remark(job)


def _remark(job: Job) -> str:
    if job.error:
        return f"{job.error.code}: {job.error.message}"
    if job.has_unknown:
        return "the end of an attempt was not seen"
    return f"{len(job.missing)} missing" if job.missing else ""


def _head(job: Job) -> Table:
    rows: list[tuple[Cell, Cell]] = [
        ("job", job.id),
        ("operation", job.operation),
        ("status", status_cell(job)),
        ("created", _moment(job.created_at)),
        ("finished", _moment(job.finished_at) if job.finished_at else f"not yet; deadline {_moment(job.deadline_at)}"),
        ("images", images_cell(job)),
    ]
    if job.error:
        rows.append(("error", Text(f"{job.error.code}: {job.error.message}", style="red")))
    rows.extend((f"metadata {name}", str(value)) for name, value in job.metadata.items())
    head = table(("", ""), rows)
    head.show_header = False
    return head


def _ledger(job: Job) -> Table | None:
    columns = ("attempt", "started", "seconds", "outcome", "charged", "cost", "vendor's id", "said")
    return _section("Ledger", columns, [_attempt_row(attempt) for attempt in job.attempts])


def _attempt_row(attempt: Attempt) -> tuple[Cell, ...]:
    took = f"{(attempt.ended_at - attempt.started_at).total_seconds():.1f}" if attempt.ended_at else "-"
    return (
        _numbers(attempt),
        f"{attempt.started_at:%H:%M:%S}",
        took,
        attempt.outcome.value,
        Text(attempt.charged.value, style=_CHARGED_STYLES[attempt.charged]),
        _cost(attempt.cost) if attempt.cost else f"about {_cost(attempt.expected_cost)}",
        attempt.external_id or "-",
        f"{attempt.code}: {attempt.message}" if attempt.code else "",
    )


def _numbers(attempt: Attempt) -> str:
    if attempt.first_number is not None:
        return f"{attempt.first_number} to {attempt.number}"
    return str(attempt.number) if attempt.times == 1 else f"{attempt.number} (sent {attempt.times} times)"


def _cost(cost: Cost | None) -> str:
    return f"{cost.amount:g} {cost.unit}" if cost else "unknown"


def _timeline(job: Job) -> Table | None:
    rows = [
        (_since(job, event.at), event.what if event.times == 1 else f"{event.what} ({event.times} times)")
        for event in job.timeline
    ]
    return _section("Timeline", ("seconds", "what"), rows)


def _since(job: Job, at: datetime) -> str:
    return f"{(at - job.created_at).total_seconds():8.2f}"


def _pictures(job: Job) -> Table | None:
    rows = [
        (
            str(item.index),
            f"{item.width}x{item.height}",
            item.content_type,
            str(item.size),
            item.url() if item.is_readable else item.key,
        )
        for item in job.artifacts
    ]
    return _section("Pictures", ("image", "pixels", "type", "bytes", "where"), rows)


def _missing(job: Job) -> Table | None:
    return _section(
        "Missing", ("image", "why"), [(str(item.index), f"{item.code}: {item.message}") for item in job.missing]
    )


def _section(title: str, columns: Iterable[str], rows: Sequence[Iterable[Cell]]) -> Table | None:
    return table(columns, rows, title=title) if rows else None


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
