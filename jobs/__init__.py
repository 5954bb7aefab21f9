"""Darkroom's public API: enqueue image jobs, follow them, and read their images."""

from .api import cancel, enqueue, enqueue_many, get, list, redeliver, retry, wait, watch  # noqa: A004 - `jobs.list`
from .attempt import Attempt, Outcome
from .delivery import Delivery
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
from .job import Event, Failure, Job, OnUnknown, Status
from .listing import Page
from .new_job import NewJob
from .operations import Operation, OperationField, operations
from .report import Charged, Code, Cost, Unit
from .request import ImageInput, JsonValue, Request

__all__ = [  # noqa: RUF022 - grouped by noun
    # jobs
    "enqueue",
    "enqueue_many",
    "get",
    "list",
    "wait",
    "watch",
    "cancel",
    "retry",
    "redeliver",
    "Job",
    "NewJob",
    "OnUnknown",
    "Page",
    "Status",
    # what a job is made of
    "Artifact",
    "Attempt",
    "Delivery",
    "Event",
    "Failure",
    "Missing",
    # money
    "Charged",
    "Cost",
    "Outcome",
    "Unit",
    # requests
    "operations",
    "ImageInput",
    "JsonValue",
    "Operation",
    "OperationField",
    "Request",
    # errors
    "ChargePossible",
    "Code",
    "DarkroomError",
    "FieldError",
    "IdempotencyConflict",
    "InvalidRequest",
    "JobNotFound",
    "NotPossible",
    "RedisUnavailable",
    "SettingsError",
    "StorageError",
    "Unavailable",
]
