"""What `/v1` answers, as pydantic models: for the OpenAPI document, and for the tests that hold the answers against it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from jobs import Charged, Code, OnUnknown, Outcome, Status, Unit

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Artifact(_Answer):
    """An image that was stored."""

    index: int = Field(description="The provider's order, from 0.")
    key: str = Field(description="Its key in the storage.")
    url: str = Field(description="Reads it; signed at this moment, for an hour.")
    content_type: str
    size: int = Field(description="Bytes.")
    sha256: Sha256
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")


class Missing(_Answer):
    """An image that was asked for and is not there."""

    index: int
    code: Code
    message: str


class Cost(_Answer):
    """What an attempt cost."""

    amount: float
    unit: Unit


class Attempt(_Answer):
    """One submission to a provider: a line of the ledger."""

    number: int = Field(description="From 1.")
    operation: str
    provider: str
    started_at: Time
    ended_at: Time | None
    outcome: Outcome
    external_id: str | None = Field(description="The provider's name for it.")
    charged: Charged
    expected_cost: Cost | None
    cost: Cost | None
    code: Code | None
    message: str | None


class Error(_Answer):
    """Why a job failed."""

    code: Code
    message: str


class Event(_Answer):
    """One line of a job's timeline."""

    at: Time
    what: str
    times: int = Field(description="How often it came in a row.")


class Try(_Answer):
    """One try of a delivery."""

    at: Time
    status: int | None = Field(description="What the receiver answered.")
    problem: str | None = Field(description="Why there was no answer.")


class Delivery(_Answer):
    """One message to the job's own webhook."""

    id: str
    event: Status
    created_at: Time
    delivered_at: Time | None
    next_at: Time | None = Field(description="When it is tried next; null when it was delivered or given up.")
    tries: int
    log: list[Try]


class Job(_Answer):
    """A job as it stands."""

    id: Id
    operation: str
    status: Status
    attempt: int = Field(description="How many attempts there were.")
    created_at: Time
    updated_at: Time
    finished_at: Time | None
    deadline_at: Time = Field(description="The end of waiting for a provider.")
    artifacts: list[Artifact]
    missing: list[Missing]
    attempts: list[Attempt]
    error: Error | None
    metadata: dict[str, Any]
    on_unknown: OnUnknown
    keep_late: bool
    timeline: list[Event]
    webhook_url: str | None = Field(description="Without its query.")
    webhook_events: list[Status]
    deliveries: list[Delivery]


class JobPage(_Answer):
    """Some jobs, the latest first."""

    jobs: list[Job]
    next_cursor: str | None = Field(description="Leads on; null after the last page.")


class Batch(_Answer):
    """The jobs of a batch, in their order."""

    jobs: list[Job]


class Upload(_Answer):
    """An image that was kept for a job to come."""

    reference: Annotated[str, Field(pattern=r"^staged:[0-9a-f]{64}\.[a-z]{3,4}$")] = Field(
        description="Usable in any image field, for the time that records are kept."
    )
    content_type: str
    width: int
    height: int
    size: int
    sha256: Sha256


class WrongField(_Answer):
    """One field that is wrong."""

    field: str = Field(description="Its path, for example params.prompt.")
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="A sentence for a person.")
    errors: list[WrongField] = Field(default=[], description="With 422: each field that is wrong.")
    reason: str | None = Field(default=None, description="With 409: why, for programs.")
    job_status: Status | None = Field(default=None, description="With 409: the job's status.")
    job_id: str | None = Field(default=None, description="With 422: the job that the idempotency key belongs to.")
    required_scope: str | None = Field(default=None, description="With 403: what the API key lacks.")
