"""The one JSON view of a job: what HTTP answers, the command line's `--json` and webhooks out show alike.

It holds no request (an input may be private), and no URL of a provider: what is not stored yet is not there yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .delivery import Delivery
from .job import Artifact, Attempt, Event, Job, Missing
from .report import Cost


def view(job: Job) -> dict[str, Any]:
    """The job as JSON values; each artifact's `url` is presigned at this moment, so the job must come from `jobs.get`."""
    return {
        "id": job.id,
        "operation": job.operation,
        "status": job.status.value,
        "attempt": len(job.attempts),
        "created_at": _time(job.created_at),
        "updated_at": _time(job.updated_at),
        "finished_at": _time(job.finished_at),
        "deadline_at": _time(job.deadline_at),
        "artifacts": [_artifact(artifact) for artifact in job.artifacts],
        "missing": [_missing(missing) for missing in job.missing],
        "attempts": [_attempt(attempt) for attempt in job.attempts],
        "error": {"code": job.error.code.value, "message": job.error.message} if job.error else None,
        "metadata": dict(job.metadata),
        "on_unknown": job.on_unknown.value,
        "keep_late": job.keep_late,
        "timeline": [_event(event) for event in job.timeline],
        "webhook_url": _place(job.webhook_url),
        "webhook_events": [event.value for event in job.webhook_events],
        "deliveries": [_delivery(delivery) for delivery in job.deliveries],
    }


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {
        "index": artifact.index,
        "key": artifact.key,
        "url": artifact.url(),
        "content_type": artifact.content_type,
        "size": artifact.size,
        "sha256": artifact.sha256,
        "width": artifact.width,
        "height": artifact.height,
    }


def _missing(missing: Missing) -> dict[str, Any]:
    return {"index": missing.index, "code": missing.code.value, "message": missing.message}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "operation": attempt.operation,
        "provider": attempt.provider,
        "started_at": _time(attempt.started_at),
        "ended_at": _time(attempt.ended_at),
        "outcome": attempt.outcome.value,
        "external_id": attempt.external_id,
        "charged": attempt.charged.value,
        "expected_cost": _cost(attempt.expected_cost),
        "cost": _cost(attempt.cost),
        "code": attempt.code.value if attempt.code else None,
        "message": attempt.message,
    }


def _event(event: Event) -> dict[str, Any]:
    return {"at": _time(event.at), "what": event.what, "times": event.times}


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "event": delivery.event,
        "created_at": _time(delivery.created_at),
        "delivered_at": _time(delivery.delivered_at),
        "next_at": _time(delivery.next_at),
        "tries": delivery.tries,
        "log": [{"at": _time(one.at), "status": one.status, "problem": one.problem} for one in delivery.log],
    }


def _place(url: str | None) -> str | None:
    """The URL without what may be a secret in it: user, password and query."""
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _cost(cost: Cost | None) -> dict[str, Any] | None:
    return {"amount": cost.amount, "unit": cost.unit.value} if cost else None


def _time(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None
