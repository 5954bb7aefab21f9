"""Darkroom's public API: enqueue image jobs, follow them, have their pictures."""

from .darkroom import cancel, enqueue, get, retry, wait
from .errors import (
    ChargePossible,
    DarkroomError,
    FieldError,
    IdempotencyConflict,
    InvalidRequest,
    JobNotFound,
    NotPossible,
    RedisUnavailable,
    SettingsError,
    StorageError,
    Unavailable,
)
from .job import Artifact, Attempt, Failure, Job, Missing, OnUnknown, Outcome, Status
from .report import Charged, Code, Cost, Unit

__all__ = [
    "Artifact",
    "Attempt",
    "ChargePossible",
    "Charged",
    "Code",
    "Cost",
    "DarkroomError",
    "Failure",
    "FieldError",
    "IdempotencyConflict",
    "InvalidRequest",
    "Job",
    "JobNotFound",
    "Missing",
    "NotPossible",
    "OnUnknown",
    "Outcome",
    "RedisUnavailable",
    "SettingsError",
    "Status",
    "StorageError",
    "Unavailable",
    "Unit",
    "cancel",
    "enqueue",
    "get",
    "retry",
    "wait",
]
