"""A job's record, the text that is kept of it in Redis: `<schema>.<writes>.<nonce>.<holder> <json>`.

The part before the space is the header. Its first three fields are the version of the record, in which the nonce tells apart the
writes of two processes. The fourth is the worker process that holds the job; it is empty when no process does. A claim changes
nothing else, so a script claims a job by writing a new header in front of the same JSON. Only a later schema has more fields there.

A record of a later schema is left alone. Fields in the JSON that this process does not know, of a later version with the same schema,
survive its writes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter

from ..errors import JobNotFound, Unavailable
from ..job import Job
from ..values import replace

#: the version of the JSON; a process leaves records with a later one alone
SCHEMA = 4

#: version and holder, up to the first field of the JSON
_HEADER = re.compile(rb"(%d\.\d+\.\w+)\.([^. ]*) \{" % SCHEMA)

_JSON = TypeAdapter(Job)
_NOT_RECORDED: Any = {
    "id": True,
    "version": True,
    "holder": True,
    "has_later_fields": True,
    "artifacts": {"__all__": {"storage"}},
}


def dumped(job: Job, version: str) -> bytes:
    """The record of a job, with this version."""
    header = f"{version}.{job.holder or ''} "
    body = _JSON.dump_json(job, exclude=_NOT_RECORDED, exclude_defaults=True)
    if job.has_later_fields:
        fields = json.loads(body)
        _add_later_fields(job, fields)
        body = json.dumps(fields, separators=(",", ":")).encode()
    return header.encode() + body


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
    body = known + record[header.end() :]
    try:
        with suppress(ValueError):  # a field that only a later version knows, or damage
            return _JSON.validate_json(body, extra="forbid")
        return replace(_JSON.validate_json(body, extra="allow"), has_later_fields=True)
    except ValueError:  # pydantic's is one, and its text quotes the record
        raise _damaged(job_id) from None


def _damaged(job_id: str) -> Unavailable:
    return Unavailable(f"the record of job {job_id} is damaged or was written by an older version of Darkroom")


def _add_later_fields(value: Any, fields: Any) -> None:
    """Add what only a later version knows of a value to its JSON; it stands in the value's `__dict__`, which `replace` copies."""
    if isinstance(value, tuple):
        for item, item_fields in zip(value, fields, strict=True):
            _add_later_fields(item, item_fields)
    elif dataclasses.is_dataclass(value):
        known = {field.name for field in dataclasses.fields(value)}
        for name, item in value.__dict__.items():
            if name not in known:
                fields[name] = item
            elif name in fields:
                _add_later_fields(item, fields[name])


def next_version(version: str) -> str:
    """The version that follows this one, or the first if it is empty; never that of another process."""
    writes = int(version.split(".")[1]) if version else 0
    return f"{SCHEMA}.{writes + 1}.{secrets.token_hex(4)}"
