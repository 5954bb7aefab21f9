"""Lists of jobs, newest first: filters, and pages that a cursor continues."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import providers
from .errors import FieldError, InvalidRequest, not_one_of
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

_STATUSES = tuple(Status)
_CODES = tuple(Code)


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
    """Which jobs a page holds; every condition must be met."""

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
    #: the most jobs of the page
    limit: int = 100
    #: the place where the page before ended: when its last job was created, in ms, and its id; None: the first page
    before: tuple[float, str] | None = None

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


def condition_errors(given: Mapping[str, Any]) -> Iterator[FieldError]:
    """Everything that is wrong with the arguments of `jobs.list`, by their names; one that is absent has its default."""
    for name in _names(given.get("status")):
        if name not in _STATUSES:
            yield not_one_of("status", name, _STATUSES)
    if (operation := given.get("operation")) is not None:
        try:
            providers.operation(str(operation))
        except InvalidRequest as error:
            yield from error.errors
    if (code := given.get("code")) is not None and code not in _CODES:
        yield not_one_of("code", code, _CODES)
    if (metadata := given.get("metadata")) is not None and not isinstance(metadata, Mapping):
        yield FieldError("metadata", f"should be an object, not {type(metadata).__name__}")
    created_after = given.get("created_after")
    if created_after is not None and getattr(created_after, "tzinfo", None) is None:
        yield FieldError("created_after", "should be a datetime with a time zone, for example datetime.now(UTC)")
    limit = given.get("limit", MAX_PAGE)
    if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        yield FieldError("limit", f"should be 1 to {MAX_PAGE}, not {str(limit)[:80]}")
    if (cursor := given.get("cursor")) is not None and not CURSOR.fullmatch(str(cursor)):
        yield FieldError("cursor", "should be the next_cursor of the page before")


def checked_filter(
    *,
    status: str | Iterable[str] | None = None,
    operation: str | None = None,
    code: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
    created_after: datetime | None = None,
    unknown: bool = False,
    owner: str = "",
    limit: int = 100,
    cursor: str | None = None,
) -> Filter:
    """The filter of these arguments of `jobs.list`. Raises InvalidRequest with every fault."""
    statuses = _names(status)
    given = {"status": statuses, "operation": operation, "code": code, "metadata": metadata}
    errors = tuple(condition_errors({**given, "created_after": created_after, "limit": limit, "cursor": cursor}))
    if errors:
        raise InvalidRequest(*errors)
    before = CURSOR.fullmatch(cursor or "")
    return Filter(
        status=frozenset(map(Status, statuses)),
        operation=operation,
        code=Code(code) if code else None,
        metadata=metadata,
        created_after=created_after,
        unknown=unknown,
        owner=owner,
        limit=limit,
        before=(float(before[1]), before[2]) if before else None,
    )


def list_page(repository: Repository, filter_: Filter) -> Page:
    """One page of the jobs that pass the filter.

    Reads at most MAX_RECORDS records, so a page of rare jobs may be short or empty although its cursor continues.
    """
    limit, before = filter_.limit, filter_.before
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


def _names(status: object) -> tuple[Any, ...]:
    """The statuses of a filter, of which one alone may be given as it is."""
    if status is None:
        return ()
    return tuple(status) if isinstance(status, Iterable) and not isinstance(status, str) else (status,)


def _matches(stored: object, wanted: JsonValue) -> bool:
    if isinstance(wanted, str) and isinstance(stored, bool | int | float):
        return json.dumps(stored) == wanted
    return stored == wanted and isinstance(stored, bool) is isinstance(wanted, bool)
