"""Darkroom's public API: enqueue image jobs, follow them, have their pictures."""

from .attempt import Attempt, Outcome
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
from .images import Artifact, Missing
from .job import Failure, Job, OnUnknown, Status
from .operations import Operation, OperationField, operations
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
    "Operation",
    "OperationField",
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
    "operations",
    "retry",
    "wait",
]
