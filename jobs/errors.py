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

and, defined where they arise, for those who call that module:

DarkroomError
 +- RejectedImage           jobs.image_file: bytes that are not an image that we store
 |   +- NotAnImage
 |   +- ImageCutShort
 |   +- ImageTooLarge
 |   +- DataAppended
 +- InvalidProvider         jobs.providers: an installed provider that cannot be used
 +- SpoolFull               jobs.storage.spool: no room for what waits for its store
 +- InputError              worker.inputs: an input image cannot be fetched or used
 +- DidNotStart             jobs.embedded: a process of the stack did not start
 +- RedisInUse              jobs.embedded: other workers use the Redis that was given
 +- PortUnavailable         jobs.embedded: another program listens on the port of a server

A worker's own `TransportError` (worker.transport) never leaves it, and is not a DarkroomError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


class DarkroomError(Exception):
    """Every error that Darkroom raises on purpose is one."""


@dataclass(frozen=True)
class FieldError:
    """One fault of a request: what is wrong with one field, and what to do about it."""

    #: the path of the field, for example `num_images`, `image_urls.0` or `metadata`
    field: str
    #: one sentence that says what is wrong and what to do
    message: str
    #: what was given, shortened; empty where it may be private (images, prompts, unknown fields)
    value: str = ""
    #: what may be given instead; empty where the message says it all
    allowed: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def __dir__(self) -> list[str]:
        """Names what a user needs."""
        return [name for name in object.__dir__(self) if name != "below"]

    def below(self, path: str) -> FieldError:
        """The same fault, its field below `path`."""
        return replace(self, field=f"{path}.{self.field}" if self.field else path)


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """A question that names the allowed name that this one resembles; empty if it resembles none."""
    # To compare takes time for each character, and the name can be as long as the body of a request.
    nearest = difflib.get_close_matches(name[:80], allowed, 1)
    return f'did you mean "{nearest[0]}"?' if nearest else ""


def not_one_of(field: str, value: object, allowed: Sequence[str]) -> FieldError:
    """The fault of a field whose value is not one of a few names."""
    *others, last = map(repr, map(str, allowed))
    names, given = f"{', '.join(others)} or {last}", repr(value)[:80]
    hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
    return FieldError(field, f"should be {names}, not {given}{'; ' * bool(hint)}{hint}", given, names)


class InvalidRequest(DarkroomError, ValueError):
    """The request is wrong; nothing was written, sent or charged. The message has a line for every fault."""

    #: every fault, in the order of the fields
    errors: tuple[FieldError, ...]

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


class SettingsError(DarkroomError, ValueError):
    """A setting is malformed or missing. The message shows an example that works."""

    #: the environment variable
    name: str
    #: what is wrong with its value
    problem: str
    #: a value that works
    example: str

    def __init__(self, name: str, problem: str, example: str) -> None:
        super().__init__(name, problem, example)
        self.name = name
        self.problem = problem
        self.example = example

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}; for example {self.name}={self.example}"


class JobNotFound(DarkroomError, LookupError):
    """No job has this id, or its retention is over."""

    #: the id that was asked for
    job_id: str

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no job has the id {self.job_id[:80]!r}: it was never enqueued here, or its retention is over"


class IdempotencyConflict(DarkroomError):
    """The idempotency key was used for another request."""

    #: the idempotency key
    key: str
    #: the job that was enqueued with it, the first one of a batch
    job_id: str

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(key, job_id)
        self.key = key
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            f"the idempotency key {self.key[:80]!r} was used for another request, job {self.job_id}; "
            "use a new key for a new request"
        )


class NotPossible(DarkroomError):
    """The job's status does not allow what was asked; nothing changed."""


class ChargePossible(NotPossible):
    """A retry may be charged a second time; accept that with `may_charge_again=True`."""

    #: the job
    job_id: str

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            f"job {self.job_id} was charged or may have been, so a retry can be charged again; "
            "to accept that, retry with may_charge_again=True"
        )


class Unavailable(DarkroomError):
    """Something outside is away; the same call may work later."""


class RedisUnavailable(Unavailable):
    """Redis did not answer, so the outcome of a write is not known; with an idempotency key the call can be repeated."""


class StorageError(Unavailable):
    """The storage refused, or did not answer."""

    #: whether the same call may work later
    retryable: bool

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidCallback(DarkroomError):
    """The body is not of the provider's shape."""


class InvalidToken(DarkroomError):
    """The token was not signed by any of our keys."""
