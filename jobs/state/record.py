"""A job's record in Redis: `<schema>.<writes>.<nonce>.<holder> <body>`, where the body is the job as JSON.

The part before the space is the header. Its first three fields are the version of the record, in which the nonce tells apart the
writes of two processes. The fourth is the worker process that holds the job; it is empty when no process does. A claim changes
nothing else, so a script claims a job by writing a new header in front of the same body. Only a later schema has more fields there.

The body of a job that waits for its provider, or is final, is compressed: such jobs fill Redis' memory, for minutes or for days. The others
change at once, and are written as they are. `json_of` returns the JSON of either.

A record of a later schema is left alone. Fields in the JSON that this process does not know, of a later version with the same schema,
survive its writes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import zlib
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter

from ..errors import JobNotFound, Unavailable
from ..job import FINAL, Job, Status
from ..values import replace

#: the version of header, JSON and dictionary; a process leaves records with a later one alone
SCHEMA = 4

#: the statuses in which a job stays for long
COMPRESSED = frozenset({Status.RUNNING, *FINAL})

#: what records have in common, the most frequent last; another dictionary needs another schema
DICTIONARY = (
    b'"missing":[{"index":0,"code":"result_expired","message":"","image":{"pending":[{"index":1,"attempt":1,"source":{'
    b'"external_id":"","expires_at":"","name":"bad_tries":1,"tries":"retry_at":"failing_since":"given_up":{"keep_late":true,'
    b'"on_unknown":"charge_again","webhook_events":["succeeded","failed","canceled"],"deliveries":[{"id":"msg_","event":"succeeded",'
    b'"next_at":null,"delivered_at":"","log":[{"at":"","status":200,"problem":"webhook_url":"https://","owner":"","metadata":{"user":"'
    b'"refusals":1,"first_number":"code":"rate_limited","code":"provider_error","code":"moderated","error":{"code":"invalid_request",'
    b'"charged":"no","message":"the provider refused the request: ","outcome":"rejected","outcome":"unknown","times":2,'
    b'"recovery":"key","recovery":"lookup","polled":true,"inline":true,"external_id":"","charged":"yes","cost":{"amount":0.5,"unit":"usd"},'
    b'"ended_at":"","outcome":"succeeded","artifacts":[{"index":0,"key":"","content_type":"image/jpeg","content_type":"image/png","size":1'
    b'"sha256":"","width":1024,"height":1024},"finished_at":"{"at":"what":"storing 1"},"what":"succeeded"}],"status":"succeeded",'
    b'{"operation":"","params":{"image_urls":["https://","prompt":"","num_images":1,},"status":"running","created_at":"2026-'
    b'"updated_at":"2026-","deadline_at":"2026-","deadline_seconds":600.0,"images_expected":1,"wake_at":"2026-'
    b'"attempts":[{"number":1,"operation":"","started_at":"2026-","holder":"","outcome":"accepted","recovery":"callback",'
    b'"expected_cost":{"amount":1.0,"unit":"credit"}}],"timeline":[{"at":"2026-","what":"queued"},{"at":"2026-","what":"submitting 1"},'
    b'{"at":"2026-","what":"running 1"}]}'
)
#: compression that is fast for a body of 1 to 4 kB, with zlib's check sums
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 6, 12, 6

_HEADER = re.compile(rb"(%d\.\d+\.\w+)\.([^. ]*) " % SCHEMA)

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
    return header.encode() + (_compressed(body) if job.status in COMPRESSED else body)


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
    # The JSON does not repeat the id and the header; they take the place of its first brace.
    known = b'{"id":"%b","version":"%b","holder":%b,' % (
        job_id.encode(),
        version,
        b'"%b"' % holder if holder else b"null",
    )
    try:
        body = known + json_of(record)[1:]
        with suppress(ValueError):  # a field that only a later version knows, or damage
            return _JSON.validate_json(body, extra="forbid")
        return replace(_JSON.validate_json(body, extra="allow"), has_later_fields=True)
    except (ValueError, zlib.error):  # pydantic's is a ValueError, and its text quotes the record
        raise _damaged(job_id) from None


def json_of(record: bytes) -> bytes:
    """The JSON of a record. Raises zlib.error if it is damaged."""
    body = record.partition(b" ")[2]
    if body.startswith(b"{"):
        return body
    unpacking = zlib.decompressobj(_WINDOW_BITS, DICTIONARY)
    unpacked = unpacking.decompress(body)
    if not unpacking.eof:
        raise zlib.error("the record is cut short")
    return unpacked


def _compressed(body: bytes) -> bytes:
    packing = zlib.compressobj(
        _LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, zdict=DICTIONARY
    )
    return packing.compress(body) + packing.flush()


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
