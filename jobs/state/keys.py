"""The names of everything that Darkroom keeps in Redis.

Jobs:

    darkroom:job:<id>            string: the record (see `record`); expires after its retention when the job is complete
    darkroom:due                 sorted set: job ids by the time at which they need attention
    darkroom:lane:<provider>     sorted set: queued jobs without a holder, by the time at which a worker may take them
    darkroom:index:<status>      sorted set: job ids by creation, for lists
    darkroom:index:unknown       sorted set: jobs with an attempt whose outcome is unknown, by creation
    darkroom:owned:<owner>       sorted set: the jobs of one API key by creation; expires with the last of them
    darkroom:idempotency:<hash>  string: the jobs that were created with an idempotency key, and the digest of their request
    darkroom:changed:<id>        channel: the job has changed; the message is its status

Workers:

    darkroom:holders             sorted set: worker processes by the end of their lease
    darkroom:workers             hash: what each of them says about itself, as JSON
    darkroom:held:<holder>       set: the jobs that a worker process holds
    darkroom:ticked              string: when any worker was last heard
    darkroom:grace               string: while it exists, no worker is taken for dead
    darkroom:turn:<name>         string: while it exists, one process has taken its turn with an upkeep

HTTP API:

    darkroom:keys                hash: API keys by id, as JSON (see `api_keys`)
    darkroom:rate:<key>          string: when the allowance of an API key is full again (see `rate_limit`)

All times are milliseconds of Redis' clock. The lists of the broker, `darkroom.<provider>`, are named in `jobs.queue`.
"""

from __future__ import annotations

import hashlib

PREFIX = "darkroom:"
DUE = PREFIX + "due"
HOLDERS = PREFIX + "holders"
WORKERS = PREFIX + "workers"
TICKED = PREFIX + "ticked"
GRACE = PREFIX + "grace"
API_KEYS = PREFIX + "keys"


def record(job_id: str) -> str:
    """The record of a job."""
    return f"{PREFIX}job:{job_id}"


def lane(provider: str) -> str:
    """The queued jobs of a provider."""
    return f"{PREFIX}lane:{provider}"


def index(name: str) -> str:
    """The jobs in one status, or the `unknown` ones."""
    return f"{PREFIX}index:{name}"


def owned(owner: str) -> str:
    """The jobs of one owner."""
    return f"{PREFIX}owned:{owner}"


def idempotency(owner: str, idempotency_key: str) -> str:
    """The jobs that an owner created with this idempotency key."""
    return PREFIX + "idempotency:" + hashlib.sha256(f"{owner}\n{idempotency_key}".encode()).hexdigest()


def channel(job_id: str) -> str:
    """The channel of a job's changes."""
    return f"{PREFIX}changed:{job_id}"


def held(holder: str | None) -> str:
    """The jobs that a worker process holds."""
    return f"{PREFIX}held:{holder or ''}"


def turn(name: str) -> str:
    """The turn with an upkeep."""
    return f"{PREFIX}turn:{name}"


def rate(key: str) -> str:
    """The allowance of an API key."""
    return f"{PREFIX}rate:{key}"
