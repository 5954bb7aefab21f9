"""Every error that Darkroom raises on purpose, cut by what the caller can do about it.

DarkroomError
 +- InvalidRequest          the request is wrong: correct the named field        (also a ValueError)
 +- SettingsError           the environment is wrong: correct the named setting  (also a ValueError)
 +- JobNotFound             no such job, or its retention is over                (also a LookupError)
 +- IdempotencyConflict     the key was used for another request
 +- NotPossible             the job's status does not allow it
 |   +- ChargePossible      it does, once you say that it may be charged again
 +- Unavailable             something outside is away: try again later
 |   +- RedisUnavailable
 |   +- StorageError
 +- InvalidCallback         a callback that is not of the provider's shape
 +- InvalidToken            a callback token that is not ours

and, defined where they arise and met by whoever calls that alone:

DarkroomError
 +- RejectedImage           jobs.image_file: bytes that are no picture that we keep
 |   +- NotAnImage
 |   +- ImageCutShort
 |   +- ImageTooLarge
 |   +- DataAppended
 +- SpoolFull               jobs.storage.spool: no room for what waits for its store
 +- InputError              worker.inputs: an input image cannot be had
 +- DidNotStart             jobs.embedded: a process of the stack did not start
 +- RedisInUse              jobs.embedded: other workers use the Redis that was given
 +- PortUnavailable         jobs.embedded: another program listens on the port of a server

A worker's own `TransportError` (worker.transport) never leaves it, and is no DarkroomError.
"""

from __future__ import annotations


class DarkroomError(Exception):
    """The root of the tree."""


class InvalidRequest(DarkroomError, ValueError):
    """The request is wrong; nothing was written.

    `field` is the name of the parameter, `value` what stood there (shortened, never image bytes), `allowed` what may stand there.
    """

    def __init__(self, field: str, value: str, allowed: str) -> None:
        super().__init__(f"{field}: {value}; allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class SettingsError(DarkroomError, ValueError):
    """The environment is wrong. `name` is the variable; the message shows an example that works."""

    def __init__(self, name: str, problem: str, example: str) -> None:
        super().__init__(f"{name}: {problem}; for example {name}={example}")
        self.name = name


class JobNotFound(DarkroomError, LookupError):
    """No job has this id, or its retention is over."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id[:80]!r}: never enqueued here, or forgotten after its retention")
        self.job_id = job_id


class IdempotencyConflict(DarkroomError):
    """The idempotency key belongs to another request. `job_id` is the job that was enqueued with it."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(f"idempotency key {key[:80]!r} was used for another request, job {job_id}; use a new key")
        self.job_id = job_id


class NotPossible(DarkroomError):
    """The job's status does not allow what was asked; nothing changed."""


class ChargePossible(NotPossible):
    """A retry might be charged a second time; say `may_charge_again=True` to accept that."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"job {job_id} was charged or may have been: a retry can be charged again; retry with may_charge_again=True"
        )
        self.job_id = job_id


class Unavailable(DarkroomError):
    """Something outside is away; the same call may work later."""


class RedisUnavailable(Unavailable):
    """Redis did not answer, so the outcome of a write is not known; with an idempotency key the call can be repeated."""


class StorageError(Unavailable):
    """The storage refused or did not answer. `retryable` tells whether the same call may work later."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidCallback(DarkroomError):
    """The body is not of the provider's shape."""


class InvalidToken(DarkroomError):
    """The token was not signed by any of our keys."""
