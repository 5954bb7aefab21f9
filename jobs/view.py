"""A job as JSON, described once: what the HTTP API answers, webhooks and events carry and `darkroom get --json` prints.

It leaves out the request, whose images and prompts may be private, and the providers' own URLs of images.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from .attempt import Outcome
from .job import Job, OnUnknown, Status
from .report import Charged, Code, Unit


def _without_secrets(url: str | None) -> str | None:
    """The URL without user, password, query and fragment, any of which may be a secret."""
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


#: UTC, to the millisecond; text in JSON, an aware datetime in Python
Time = Annotated[
    datetime,
    PlainSerializer(lambda at: at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
JobId = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{32}$"})]
Sha256 = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"})]


class View(BaseModel):
    """The root of all parts: a field takes the value of the attribute that has its name."""

    model_config = ConfigDict(
        frozen=True,
        from_attributes=True,
        # In the OpenAPI document it is `Job`, not `JobView`.
        model_title_generator=lambda model: model.__name__.removesuffix("View"),
    )


class ArtifactView(View):
    """An image that was stored."""

    index: int = Field(description="The image's position in the provider's result, from 0.")
    key: str = Field(description="The object's key in the storage.")
    url: Annotated[str, BeforeValidator(lambda url: url() if callable(url) else url)] = Field(
        description="A signed URL that reads the image and expires after an hour."
    )
    content_type: str = Field(description="The media type, as determined from the bytes.")
    size: int = Field(description="The size in bytes.")
    sha256: Sha256 = Field(description="The SHA-256 digest of the bytes, in hex.")
    width: int = Field(description="The width in pixels.")
    height: int = Field(description="The height in pixels.")


class MissingView(View):
    """An image that was requested but could not be stored."""

    index: int = Field(description="The image's position in the provider's result, from 0.")
    code: Code = Field(description="Why the image is missing.")
    message: str = Field(description="The reason in one sentence.")


class CostView(View):
    """An amount of a unit."""

    amount: float = Field(description="How many units.")
    unit: Unit = Field(description="The provider's unit of price.")


class AttemptView(View):
    """One submission to a provider: a line of the job's ledger."""

    number: int = Field(description="The attempt's number, from 1; of a run of refusals, the last number.")
    first_number: int | None = Field(
        description="Of a run of attempts that the provider refused for now, which is one line, the first number."
    )
    times: int = Field(description="How many times it was sent.")
    refusals: int = Field(description="How many of these times the provider refused it for now, without a charge.")
    operation: str = Field(description="The operation that was called.")
    provider: str = Field(description="The provider that was called.")
    started_at: Time = Field(description="When the attempt was written to the ledger, just before it was sent.")
    ended_at: Time | None = Field(description="When its outcome became known; null until then.")
    outcome: Outcome = Field(description="What became of it.")
    external_id: str | None = Field(description="The provider's id of the attempt.")
    charged: Charged = Field(description="Whether the provider charged for it.")
    expected_cost: CostView | None = Field(description="The price that was expected when it was sent.")
    cost: CostView | None = Field(description="The price that the provider reported.")
    code: Code | None = Field(description="Why it failed; null unless it did.")
    message: str | None = Field(description="The failure in one sentence.")


class ErrorView(View):
    """Why a job failed."""

    code: Code = Field(description="The reason, for programs.")
    message: str = Field(description="The reason in one sentence.")


class EventView(View):
    """One line of a job's timeline."""

    at: Time = Field(description="When it happened, the first time if more than once.")
    what: str = Field(description="What happened, in a few words.")
    times: int = Field(description="How many times it happened in a row.")


class TryView(View):
    """One try of a delivery."""

    at: Time = Field(description="When the webhook was sent.")
    status: int | None = Field(description="The HTTP status that the endpoint answered; null without an answer.")
    problem: str | None = Field(description="Why there was no answer; null if there was one.")


class DeliveryView(View):
    """One webhook about the job, and its tries."""

    id: str = Field(description="The webhook's id, the same in each try: the header `webhook-id`.")
    event: Status = Field(description="The status that the webhook announces.")
    created_at: Time = Field(description="When the job reached that status.")
    delivered_at: Time | None = Field(description="When the endpoint accepted it; null until then.")
    next_at: Time | None = Field(description="When it is tried next; null once it was delivered or given up.")
    tries: int = Field(description="How many times it was tried.")
    log: tuple[TryView, ...] = Field(description="The latest tries, oldest first.")


class JobView(View):
    """A job."""

    id: JobId = Field(description="The job's id.")
    operation: str = Field(description="The operation, for example `deepmode.generate`.")
    status: Status = Field(description="Where the job is in its life; succeeded, failed and canceled are final.")
    attempt: Annotated[int, BeforeValidator(lambda attempt: getattr(attempt, "number", attempt or 0))] = Field(
        description="The number of the current attempt, from 1."
    )
    created_at: Time = Field(description="When the job was enqueued.")
    updated_at: Time = Field(description="When the job changed last.")
    finished_at: Time | None = Field(description="When the job reached a final status; null until then.")
    deadline_at: Time = Field(description="Until when the job waits for a provider.")
    artifacts: tuple[ArtifactView, ...] = Field(description="The stored images.")
    missing: tuple[MissingView, ...] = Field(description="The images that could not be stored.")
    attempts: tuple[AttemptView, ...] = Field(description="The ledger: each submission and what it cost.")
    error: ErrorView | None = Field(description="Why the job failed; null unless it did.")
    metadata: dict[str, Any] = Field(description="Your own data, as it was given at enqueue.")
    on_unknown: OnUnknown = Field(description="What happens after an attempt with an unknown outcome.")
    keep_late: bool = Field(description="Whether images that arrive after a cancellation are stored.")
    timeline: tuple[EventView, ...] = Field(description="The latest events, oldest first.")
    webhook_url: Annotated[str | None, BeforeValidator(_without_secrets)] = Field(
        description="Where webhooks about the job are sent, without the URL's query."
    )
    webhook_events: tuple[Status, ...] = Field(description="The statuses that are announced by a webhook.")
    deliveries: tuple[DeliveryView, ...] = Field(description="The webhooks about the job so far.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """The view of a job.

        Artifacts sign their URLs here, so the job must come from `jobs.get`, `jobs.wait` or another call that binds it
        to the storage. Raises NotPossible otherwise.
        """
        return cls.model_validate(job)
