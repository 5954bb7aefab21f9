"""Reports: what a provider says about an attempt, the same for all: `Running`, `Succeeded` or `Failed`. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Code(StrEnum):
    """Why a job or an image failed."""

    INVALID_REQUEST = "invalid_request"  #: the provider refused the fields of the request
    UNAUTHORIZED = "unauthorized"  #: the provider refused the API key
    OUT_OF_CREDIT = "out_of_credit"  #: the account at the provider has no credit left
    MODERATED = "moderated"  #: the provider refused the content
    RATE_LIMITED = "rate_limited"  #: the provider refused because of too many requests
    PROVIDER_ERROR = "provider_error"  #: the provider failed, or gave an answer that cannot be read
    TIMEOUT = "timeout"  #: the provider gave up rendering
    DEADLINE = "deadline"  #: the job's deadline passed
    OUTCOME_UNKNOWN = "outcome_unknown"  #: an attempt was sent, and its outcome cannot be found out
    RESULT_EXPIRED = "result_expired"  #: the URL of the image stopped working before the image was stored
    RESULT_REJECTED = "result_rejected"  #: not an image that is stored: too large, cut short, at a forbidden address
    STORAGE_ERROR = "storage_error"  #: the storage refused the image


class Charged(StrEnum):
    """Whether an attempt costs money."""

    #: it was not charged
    NO = "no"
    #: it was charged
    YES = "yes"
    #: not known; assume that it was charged
    UNKNOWN = "unknown"


class Source(StrEnum):
    """How a provider reported."""

    ANSWER = "answer"  #: by its answer to the submission
    CALLBACK = "callback"  #: by a callback
    POLL = "poll"  #: by its answer to a poll


class Unit(StrEnum):
    """What a price is counted in."""

    #: a credit at the provider
    CREDIT = "credit"
    #: a US dollar
    USD = "usd"
    #: a token at the provider
    TOKEN = "token"  # noqa: S105 - a unit of price


@dataclass(frozen=True)
class Cost:
    """What an attempt costs: an amount of a unit."""

    #: how many units
    amount: float
    #: what is counted
    unit: Unit


@dataclass(frozen=True)
class Image:
    """One image that a provider offers, for a short time.

    One of three is set: `url`, `content` for an image that came inside the answer, or `refused` for an image that the
    provider withholds.
    """

    #: the image's position in the provider's result, from 0
    index: int
    #: where it can be fetched, byte for byte as the provider wrote it; a secret
    url: str | None = field(default=None, repr=False)
    #: the image itself; never written into a record
    content: bytes | None = field(default=None, repr=False)
    #: the provider's id of the image, by which it may sign a new URL
    external_id: str | None = None
    #: when the URL stops working, where the provider signs that into it
    expires_at: datetime | None = None
    #: how long the URL works from the moment it is reported, in seconds, where `expires_at` does not say; None: unknown
    life_seconds: float | None = None
    #: why this image is withheld
    refused: Code | None = None


@dataclass(frozen=True)
class Running:
    """The provider accepted the attempt; the result comes later."""

    #: the provider's name for the attempt; None when it gives none
    external_id: str | None = None


@dataclass(frozen=True)
class Succeeded:
    """The provider rendered the attempt."""

    #: in the provider's order; those that were requested and are not there are missing
    images: tuple[Image, ...]
    #: the provider's name for the attempt
    external_id: str | None = None
    #: what it cost, if the answer says so
    cost: Cost | None = None


@dataclass(frozen=True)
class Failed:
    """The provider refused the attempt or failed to render it, or it was not sent."""

    code: Code
    #: one sentence for a person, without secrets
    message: str
    #: whether the same request may succeed later
    retryable: bool = False
    #: whether the attempt was charged; `no` only where the provider says so, or nothing was sent
    charged: Charged = Charged.UNKNOWN
    #: how long the provider asks to wait before a retry, in seconds
    retry_after_seconds: float | None = None
    #: the provider's name for the attempt, if the failure is that of an accepted attempt
    external_id: str | None = None
    #: nothing reached the provider (refused connection, unknown host)
    not_sent: bool = False
    #: the provider did nothing, and the failure says nothing about the request: 429, 503, overloaded
    not_now: bool = False

    @property
    def is_not_now(self) -> bool:
        """Whether the same request is sent again until the deadline: nothing was done, and nothing charged."""
        return self.retryable and (self.not_now or self.not_sent) and self.charged is Charged.NO


Report = Running | Succeeded | Failed
