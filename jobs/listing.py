"""Lists of jobs, newest first: filters, and pages that a cursor continues."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from . import providers
from .errors import FieldError, InvalidRequest
from .job import Job, Status
from .report import Code
from .request import JsonValue
from .state.repository import Repository

#: the most jobs of a page
MAX_PAGE = 1000
#: the most records that are read for one page; the cursor continues behind them
MAX_RECORDS = 10_000
#: how many records are read at a time where a filter has no index
CHUNK = 500

#: when the last job of a page was created, in ms, and its id
CURSOR = re.compile(r"([0-9]{1,15})-([0-9a-f]{32})")

_STATUSES = frozenset(Status)


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first."""

    #: the jobs, newest first
    jobs: tuple[Job, ...]
    #: pass it as `cursor` to get the next page; None after the last one
    next_cursor: str | None

    def __iter__(self) -> Iterator[Job]:
        """Iterate over the jobs of this page."""
        return iter(self.jobs)

    def __len__(self) -> int:
        """Count the jobs of this page."""
        return len(self.jobs)


@dataclass(frozen=True)
class Filter:
    """Which jobs a list holds; every condition must be met."""

    #: any of these; empty: all
    status: frozenset[Status] = frozenset()
    operation: str | None = None
    #: jobs that failed for this reason
    code: Code | None = None
    #: values that the job's metadata must hold; a text also matches the number or the truth value that it spells
    metadata: Mapping[str, JsonValue] | None = None
    created_after: datetime | None = None
    #: only jobs that hold an attempt with an unknown outcome, which may have been charged
    unknown: bool = False
    #: the name of an API key; empty: all
    owner: str = ""

    @property
    def is_indexed(self) -> bool:
        """Whether every job that the index yields passes."""
        return not (self.operation or self.code or self.metadata or (self.status and (self.owner or self.unknown)))

    def accepts(self, job: Job) -> bool:
        """Whether the job meets every condition."""
        return (
            (not self.status or job.status in self.status)
            and self.operation in (None, job.operation)
            and (self.code is None or (job.error is not None and job.error.code is self.code))
            and (not self.unknown or job.has_unknown)
            and all(
                key in job.metadata and _matches(job.metadata[key], value)
                for key, value in (self.metadata or {}).items()
            )
        )


def checked_filter(
    *,
    status: str | Iterable[str] | None = None,
    operation: str | None = None,
    code: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
    created_after: datetime | None = None,
    unknown: bool = False,
    owner: str = "",
) -> Filter:
    """The filter of these conditions. Raises InvalidRequest with every fault."""
    names = () if status is None else (status,) if isinstance(status, str) else tuple(status)
    errors = []
    if wrong := sorted(set(names) - _STATUSES):
        errors.append(FieldError("status", f"should be of {', '.join(Status)}, not {', '.join(wrong)[:80]}"))
    if operation is not None:
        try:
            providers.operation(operation)
        except InvalidRequest as error:
            errors += error.errors
    if code is not None and code not in tuple(Code):
        errors.append(FieldError("code", f"should be of {', '.join(Code)}, not {code[:80]!r}"))
    if created_after is not None and created_after.tzinfo is None:
        errors.append(FieldError("created_after", "should have a time zone, for example datetime.now(UTC)"))
    if errors:
        raise InvalidRequest(*errors)
    return Filter(
        frozenset(map(Status, names)), operation, Code(code) if code else None, metadata, created_after, unknown, owner
    )


def list_page(repository: Repository, filter_: Filter, *, limit: int, cursor: str | None) -> Page:
    """One page of the jobs that pass the filter.

    Reads at most MAX_RECORDS records, so a page of rare jobs may be short or empty although its cursor continues.
    Raises InvalidRequest for a limit or a cursor that is malformed.
    """
    match = CURSOR.fullmatch(cursor or "")
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(FieldError("limit", f"should be 1 to {MAX_PAGE}, not {limit}"))
    if cursor is not None and match is None:
        raise InvalidRequest(FieldError("cursor", "should be the next_cursor of the page before"))
    before = (float(match[1]), match[2]) if match else None
    found: list[Job] = []
    chunk = limit if filter_.is_indexed else CHUNK
    for _ in range(0, MAX_RECORDS, chunk):
        jobs = repository.list(filter_.status, unknown=filter_.unknown, owner=filter_.owner, before=before, limit=chunk)
        if not jobs:
            return Page(tuple(found), None)
        for job in jobs:
            if filter_.created_after and job.created_at <= filter_.created_after:
                return Page(tuple(found), None)
            before = int(job.created_at.timestamp() * 1000), job.id
            if filter_.accepts(job):
                found.append(job)
            if len(found) == limit:
                return Page(tuple(found), f"{before[0]}-{before[1]}")
    return Page(tuple(found), f"{before[0]:.0f}-{before[1]}" if before else None)


def _matches(stored: object, wanted: JsonValue) -> bool:
    if isinstance(wanted, str) and isinstance(stored, bool | int | float):
        return json.dumps(stored) == wanted
    return stored == wanted and isinstance(stored, bool) is isinstance(wanted, bool)
