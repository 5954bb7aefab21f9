"""A job's record, the text that is kept of it in Redis: `<schema>.<writes>.<nonce> <json>`.

The part before the space is the version of the record; the nonce tells apart the writes of two processes.
"""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import TypeAdapter

from ..errors import JobNotFound, Unavailable
from ..job import Job

#: the version of the JSON; a process leaves records with a later one alone
SCHEMA = 3

_JSON = TypeAdapter(Job)
_NOT_RECORDED: Any = {"id": True, "version": True, "artifacts": {"__all__": {"storage"}}}


def dumped(job: Job, version: str) -> bytes:
    """The record of a job, with this version."""
    return version.encode() + b" " + _JSON.dump_json(job, exclude=_NOT_RECORDED, exclude_defaults=True)


def loaded(job_id: str, record: bytes | None) -> Job:
    """The job in a record. Raises JobNotFound if there is none, and Unavailable if it cannot be read, by us or at all."""
    if not record:
        raise JobNotFound(job_id)
    version, _, body = record.partition(b" ")
    try:
        if not is_readable(record):
            raise Unavailable(f"job {job_id} was written by a later version of Darkroom: upgrade this process")
        # The JSON does not repeat the id and the version; they are put in front of its first field.
        return _JSON.validate_json(
            b'{"id":"%b","version":"%b",%b' % (job_id.encode(), version, body.removeprefix(b"{"))
        )
    except ValueError:  # pydantic's is one, and its text quotes the record
        raise Unavailable(
            f"the record of job {job_id} is damaged or was written by an older version of Darkroom"
        ) from None


def is_readable(record: bytes) -> bool:
    """Whether this process can read a record."""
    return int(record.split(b".", 1)[0]) <= SCHEMA


def next_version(version: str) -> str:
    """The version that follows this one, or the first if it is empty; never that of another process."""
    writes = int(version.split(".")[1]) if version else 0
    return f"{SCHEMA}.{writes + 1}.{secrets.token_hex(4)}"
