"""A job's record, the text that is kept of it in Redis: `<schema>.<writes>.<nonce>.<holder> <json>`.

The part before the space is the header. Its first three fields are the version of the record, in which the nonce tells apart the
writes of two processes. The fourth is the worker process that holds the job; it is empty when no process does. A claim changes
nothing else, so a script claims a job by writing a new header in front of the same JSON. Only a later schema has more fields.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from pydantic import TypeAdapter

from ..errors import JobNotFound, Unavailable
from ..job import Job

#: the version of the JSON; a process leaves records with a later one alone
SCHEMA = 4

#: version and holder, up to the first field of the JSON
_HEADER = re.compile(rb"(%d\.\d+\.\w+)\.([^. ]*) \{" % SCHEMA)

_JSON = TypeAdapter(Job)
_NOT_RECORDED: Any = {"id": True, "version": True, "holder": True, "artifacts": {"__all__": {"storage"}}}


def dumped(job: Job, version: str) -> bytes:
    """The record of a job, with this version."""
    header = f"{version}.{job.holder or ''} "
    return header.encode() + _JSON.dump_json(job, exclude=_NOT_RECORDED, exclude_defaults=True)


def loaded(job_id: str, record: bytes | None) -> Job:
    """The job in a record. Raises JobNotFound if there is none, and Unavailable if it cannot be read, by us or at all."""
    if not record:
        raise JobNotFound(job_id)
    schema = re.match(rb"\d+(?=\.)", record)
    if schema and int(schema[0]) > SCHEMA:
        raise Unavailable(f"job {job_id} was written by a later version of Darkroom: upgrade this process")
    header = _HEADER.match(record)
    if not header:
        raise _damaged(job_id)
    version, holder = header.groups()
    # The JSON does not repeat the id and the header; they are put in front of its first field.
    known = b'{"id":"%b","version":"%b","holder":%b,' % (
        job_id.encode(),
        version,
        b'"%b"' % holder if holder else b"null",
    )
    try:
        return _JSON.validate_json(known + record[header.end() :])
    except ValueError:  # pydantic's is one, and its text quotes the record
        raise _damaged(job_id) from None


def _damaged(job_id: str) -> Unavailable:
    return Unavailable(f"the record of job {job_id} is damaged or was written by an older version of Darkroom")


def next_version(version: str) -> str:
    """The version that follows this one, or the first if it is empty; never that of another process."""
    writes = int(version.split(".")[1]) if version else 0
    return f"{SCHEMA}.{writes + 1}.{secrets.token_hex(4)}"
