"""A job's record: its text in Redis.

A record is one string, `<schema>.<writes>.<nonce> <json>`; its version is the part before the space. The names of all keys
are in `keys`.
"""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import TypeAdapter

from ..errors import JobNotFound, Unavailable
from ..job import Job

#: the version of the record's shape; a process leaves records of a later one alone
SCHEMA = 2

_JSON = TypeAdapter(Job)
_NOT_RECORDED: Any = {"id": True, "version": True, "artifacts": {"__all__": {"storage"}}}


def dumped(job: Job, version: str) -> bytes:
    """The record of a job, in this version."""
    return version.encode() + b" " + _JSON.dump_json(job, exclude=_NOT_RECORDED, exclude_defaults=True)


def loaded(job_id: str, record: bytes | None) -> Job:
    """The job in a record. Raises JobNotFound without one, Unavailable when a later version of Darkroom wrote it."""
    if not record:
        raise JobNotFound(job_id)
    version, _, body = record.partition(b" ")
    if not is_readable(record):
        raise Unavailable(f"job {job_id} was written by a later version of Darkroom; upgrade this process")
    # The record does not repeat its id and its version; they are put back in front of its first field.
    return _JSON.validate_json(b'{"id":"%b","version":"%b",%b' % (job_id.encode(), version, body.removeprefix(b"{")))


def is_readable(record: bytes) -> bool:
    """Whether this process knows the shape of a record."""
    return int(record.split(b".", 1)[0]) <= SCHEMA


def next_version(version: str) -> str:
    """A version after this one, unlike any other process's; the first after an empty one."""
    writes = int(version.split(".")[1]) if version else 0
    return f"{SCHEMA}.{writes + 1}.{secrets.token_hex(4)}"
