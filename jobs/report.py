"""What a provider says, in our words: `Running`, `Succeeded` or `Failed`. Pure values."""

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
    #: nobody can tell; assume that it was charged
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
    """One image that a provider offers, short-lived.

    Either `url` or `content` (an image that came inside the answer) is set, or `refused`, when the provider
    withholds this one image.
    """

    #: the provider's order, from 0
    index: int
    #: where it lies, byte-exact as the provider wrote it; a secret
    url: str | None = field(default=None, repr=False)
    #: the image itself; never written into a record
    content: bytes | None = field(default=None, repr=False)
    #: the vendor's id of the image, by which a URL can be had again
    external_id: str | None = None
    #: when the URL stops working, where the provider signs that into it
    expires_at: datetime | None = None
    #: how long the URL works from the moment it is reported, in seconds, where `expires_at` does not say; None: unknown
    life_seconds: float | None = None
    #: why this image is withheld
    refused: Code | None = None


@dataclass(frozen=True)
class Running:
    """Accepted; the result comes later."""

    #: the vendor's name for the attempt; None when the vendor gives none
    external_id: str | None = None


@dataclass(frozen=True)
class Succeeded:
    """Rendered. `images` are in the provider's order; fewer than asked means that some are missing."""

    images: tuple[Image, ...]
    external_id: str | None = None
    #: what the answer itself says it cost
    cost: Cost | None = None


@dataclass(frozen=True)
class Failed:
    """Refused or failed."""

    code: Code
    #: one sentence for a person, without secrets
    message: str
    #: whether the same request may succeed later
    retryable: bool = False
    charged: Charged = Charged.NO
    #: how long the vendor asks to wait, in seconds
    retry_after_seconds: float | None = None
    external_id: str | None = None
    #: surely nothing reached the provider (refused connection, unknown host)
    not_sent: bool = False
    #: the provider did nothing, and says nothing about the request: 429, 503, overloaded
    not_now: bool = False

    @property
    def is_not_now(self) -> bool:
        """Whether the same request is worth sending until the deadline: nothing was done, and nothing charged."""
        return self.retryable and (self.not_now or self.not_sent) and self.charged is Charged.NO


Report = Running | Succeeded | Failed
