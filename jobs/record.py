"""A job's record: its text, and the names of what stands beside it in Redis.

A record is one string, `<schema>.<writes>.<nonce> <json>`; what stands before the space is its version. Beside the records
stand a few sorted sets, all written by the script that writes the record, so that they never disagree:

    darkroom:job:<id>          the record; expires after its retention once the job is final
    darkroom:due               job ids by the time at which the sweep must look at them
    darkroom:line:<provider>   queued jobs that nobody holds, by the time at which a worker may take them
    darkroom:index:<status>    job ids by creation, for listing; `index:unknown`: those with an end nobody saw
    darkroom:owned:<owner>     the same for the jobs of one API key; expires with the last of them
    darkroom:idempotency:<..>  the jobs that were enqueued with a key, and the digest of their request
    darkroom:changed:<id>      a channel: the job's status changed
    darkroom:turn:<name>       somebody has done it lately

and of the workers:

    darkroom:holders           worker processes by the end of their lease
    darkroom:workers           a hash: what each of them says of itself
    darkroom:held:<holder>     the jobs that a worker process has in its hands
    darkroom:ticked            when any worker was last heard
    darkroom:grace             nobody is believed dead while it is there

Elsewhere: `darkroom:keys` (jobs/keys.py), `darkroom:rate:<key>` (webhooks/limits.py), `darkroom:hub:<id>` (a channel,
webhooks/waiting.py), and the broker's own lists, `darkroom.<provider>`.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from pydantic import TypeAdapter

from .errors import JobNotFound, Unavailable
from .job import Job

#: the version of the record's shape; a process leaves records of a later one alone
SCHEMA = 1

PREFIX = "darkroom:"
DUE = PREFIX + "due"
HOLDERS = PREFIX + "holders"
WORKERS = PREFIX + "workers"
TICKED = PREFIX + "ticked"
GRACE = PREFIX + "grace"


def key(job_id: str) -> str:
    """Where the record of a job stands."""
    return f"{PREFIX}job:{job_id}"


def line(provider: str) -> str:
    """The queued jobs of a provider."""
    return f"{PREFIX}line:{provider}"


def index(name: str) -> str:
    """The jobs in one status, or the `unknown` ones."""
    return f"{PREFIX}index:{name}"


def owned(owner: str) -> str:
    """The jobs of one API key."""
    return f"{PREFIX}owned:{owner}"


def held(holder: str | None) -> str:
    """The jobs in the hands of a worker process."""
    return f"{PREFIX}held:{holder or ''}"


def idempotency(owner: str, idempotency_key: str) -> str:
    """The jobs that an owner enqueued with this key."""
    return PREFIX + "idempotency:" + hashlib.sha256(f"{owner}\n{idempotency_key}".encode()).hexdigest()


def turn(name: str) -> str:
    """Whose turn it was lately, with something that is done by one of all."""
    return f"{PREFIX}turn:{name}"


def channel(job_id: str) -> str:
    """The channel on which changes of a job are told."""
    return f"{PREFIX}changed:{job_id}"


_JSON = TypeAdapter(Job)
_NOT_RECORDED: Any = {"id": True, "version": True, "artifacts": {"__all__": {"sign"}}}


def dumped(job: Job, version: str) -> bytes:
    """The record of a job, in this version."""
    return version.encode() + b" " + _JSON.dump_json(job, exclude=_NOT_RECORDED, exclude_defaults=True)


def loaded(job_id: str, record: bytes | None) -> Job:
    """The job in a record. Raises JobNotFound without one, Unavailable when a later version of Darkroom wrote it."""
    if not record:
        raise JobNotFound(job_id)
    version, _, body = record.partition(b" ")
    if not readable(record):
        raise Unavailable(f"job {job_id} was written by a later version of Darkroom; upgrade this process")
    # The record does not repeat its id and its version; they are put back in front of its first field.
    return _JSON.validate_json(b'{"id":"%b","version":"%b",%b' % (job_id.encode(), version, body.removeprefix(b"{")))


def readable(record: bytes) -> bool:
    """Whether this process knows the shape of a record."""
    return int(record.split(b".", 1)[0]) <= SCHEMA


def next_version(version: str) -> str:
    """A version after this one, unlike any other process's; the first after an empty one."""
    writes = int(version.split(".")[1]) if version else 0
    return f"{SCHEMA}.{writes + 1}.{secrets.token_hex(4)}"
