"""The images of a job: each that a provider offers is pending until it is an artifact or missing. Frozen values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .errors import NotPossible
from .report import Code, Image
from .values import replace, shown


@dataclass(frozen=True)
class AtUrl:
    """An image that is fetched from the provider's URL."""

    #: byte for byte as the provider wrote it; a secret
    url: str = field(repr=False)
    #: the provider's id of the image, by which it may sign a new URL
    external_id: str | None = None
    #: when the URL stops working; None: unknown
    expires_at: datetime | None = None

    @classmethod
    def of(cls, image: Image, now: datetime) -> AtUrl | None:
        """The source of an image that is reported now; None when it has no URL."""
        if image.url is None:
            return None
        expires_at = image.expires_at
        if expires_at is None and image.life_seconds is not None:
            expires_at = now + timedelta(seconds=image.life_seconds)
        return cls(image.url, image.external_id, expires_at)


@dataclass(frozen=True)
class InSpool:
    """An image that came without a URL, and waits in a worker's spool for the storage."""

    #: the name of its file
    name: str


@dataclass(frozen=True)
class PendingImage:
    """An image that a provider reported and that is not stored yet."""

    #: the image's position in the provider's result, from 0
    index: int
    #: the number of the attempt that rendered it
    attempt: int
    #: where its bytes come from
    source: AtUrl | InSpool
    #: how many tries found something that is not a proper image
    bad_tries: int = 0
    #: how many times it was tried
    tries: int = 0
    #: when it is tried next; None: now
    retry_at: datetime | None = None
    #: when it was tried first without success
    failing_since: datetime | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When its URL stops working; None: unknown, or it has none."""
        return self.source.expires_at if isinstance(self.source, AtUrl) else None

    @property
    def external_id(self) -> str | None:
        """The provider's id of the image, by which it may sign a new URL."""
        return self.source.external_id if isinstance(self.source, AtUrl) else None

    def refreshed(self, offered: Image, now: datetime) -> PendingImage:
        """The image at the URL with which the provider reports it again."""
        fresh = AtUrl.of(offered, now)
        if fresh is None:
            return self
        return replace(self, source=replace(fresh, external_id=fresh.external_id or self.external_id))

    def postponed(self, result: Postponed, now: datetime) -> PendingImage:
        """The image after a try that did not store it."""
        return replace(
            self,
            source=result.source or self.source,
            tries=self.tries + 1,
            bad_tries=self.bad_tries + result.bad,
            failing_since=self.failing_since or now,
            retry_at=now + timedelta(seconds=result.after_seconds),
        )

    def untried(self) -> PendingImage:
        """The image as if it had never been tried."""
        return replace(self, bad_tries=0, tries=0, retry_at=None, failing_since=None)


@dataclass(frozen=True)
class ArtifactStorage:
    """What an artifact needs of the storage."""

    #: a URL that serves the object under a key for so many seconds
    url: Callable[[str, int], str]
    #: the content of the object under a key
    get: Callable[[str], bytes]


@dataclass(frozen=True)
class Artifact:
    """A stored image."""

    #: the image's position in the provider's result, from 0
    index: int
    #: the key of the object in the storage
    key: str
    #: the media type, by its bytes: image/jpeg, image/png, image/webp or image/gif
    content_type: str
    #: in bytes
    size: int
    #: the SHA-256 of the content, 64 hexadecimal digits
    sha256: str
    #: in pixels
    width: int
    #: in pixels
    height: int
    #: the number of the attempt that rendered it
    attempt: int = 1
    #: internal: the storage that holds it
    storage: ArtifactStorage | None = field(default=None, repr=False, compare=False)

    def url(self, expires_seconds: int = 3600) -> str:
        """A URL that reads the image for `expires_seconds`, 1 to 604,800, signed now; a secret.

        Raises NotPossible for an artifact that did not come from `jobs.get` or another function of `jobs`.
        """
        return self._bound_storage().url(self.key, expires_seconds)

    def read(self) -> bytes:
        """The bytes of the image, from the storage.

        Raises StorageError when the storage is away or no longer has the image, and NotPossible as `url` does.
        """
        return self._bound_storage().get(self.key)

    @property
    def is_readable(self) -> bool:
        """Whether `url` and `read` work: the artifact came from `jobs.get` or another function of `jobs`."""
        return self.storage is not None

    def __dir__(self) -> list[str]:
        """Names what a user needs."""
        return shown(self, ("storage",))

    def _bound_storage(self) -> ArtifactStorage:
        if self.storage is None:
            raise NotPossible("this artifact is not bound to a storage; get its job with jobs.get")
        return self.storage


@dataclass(frozen=True)
class Missing:
    """An image that was requested and could not be stored."""

    #: the image's position in the provider's result, from 0
    index: int
    #: the kind of failure
    code: Code
    #: one sentence for a person, without secrets
    message: str
    #: internal: the image, to be fetched again when a person retries the job
    image: PendingImage | None = field(default=None, repr=False)

    def __dir__(self) -> list[str]:
        """Names what a user needs."""
        return shown(self, ("image",))


@dataclass(frozen=True)
class Postponed:
    """An image that was not stored this time and is tried again."""

    #: the image's position in the provider's result, from 0
    index: int
    #: how long until it is tried again, in seconds
    after_seconds: float
    #: why it was not stored, in one sentence
    message: str
    #: whether its URL was answered, but not with a proper image
    bad: bool = False
    #: its new source, if the provider signed a new URL
    source: AtUrl | None = None


@dataclass(frozen=True)
class Spooled:
    """An image that came inside an answer and was written to the spool, because the storage was away."""

    #: the image's position in the provider's result, from 0
    index: int
    #: the name of its file
    name: str


#: the result of trying to store a pending image
StoreResult = Artifact | Missing | Postponed
#: what became of an image that came inside an answer, before the record changes
InlineResult = Artifact | Missing | Spooled


def to_job_image(
    image: Image, number: int, inline: InlineResult | None, now: datetime
) -> PendingImage | Artifact | Missing:
    """What a job records of an image that attempt `number` offers; `inline` is given if it came inside the answer."""
    if isinstance(inline, Spooled):
        return PendingImage(image.index, number, InSpool(inline.name))
    if inline is not None:
        return inline
    if image.refused is not None:
        return Missing(image.index, image.refused, "the provider withheld this image")
    source = AtUrl.of(image, now)
    if source is None:
        return Missing(image.index, Code.PROVIDER_ERROR, "the provider returned neither a URL nor the image itself")
    return PendingImage(image.index, number, source)
