"""The names of everything that Darkroom keeps in Redis.

    darkroom:job:<id>          the record; expires after its retention once the job is final
    darkroom:due               job ids by the time at which the sweep must look at them
    darkroom:lane:<provider>   queued jobs that nobody holds, by the time at which a worker may take them
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

Elsewhere: `darkroom:keys` (jobs/state/api_keys.py), `darkroom:rate:<key>` (jobs/state/rate_limit.py), and the broker's own lists, `darkroom.<provider>`.
"""

from __future__ import annotations

import hashlib

PREFIX = "darkroom:"
DUE = PREFIX + "due"
HOLDERS = PREFIX + "holders"
WORKERS = PREFIX + "workers"
TICKED = PREFIX + "ticked"
GRACE = PREFIX + "grace"


def record(job_id: str) -> str:
    """Where the record of a job stands."""
    return f"{PREFIX}job:{job_id}"


def lane(provider: str) -> str:
    """The queued jobs of a provider."""
    return f"{PREFIX}lane:{provider}"


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
