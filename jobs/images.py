"""What becomes of the images that a provider offers: each is pending until it is an artifact or missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .errors import NotPossible
from .report import Code, Image
from .values import replace


@dataclass(frozen=True)
class PendingImage:
    """An image that a provider reported and that is not stored yet."""

    index: int
    #: the attempt that made it
    attempt: int
    url: str | None = field(default=None, repr=False)
    external_id: str | None = None
    expires_at: datetime | None = None
    #: the file in the spool folder that holds it, when it came without a URL
    spooled: str | None = None
    #: fetches that ended in no proper image
    bad_tries: int = 0
    #: tries in all
    tries: int = 0
    retry_at: datetime | None = None
    #: the first try that failed
    failing_since: datetime | None = None

    def refreshed(self, offered: Image, now: datetime) -> PendingImage:
        """The image at the URL under which it is offered again."""
        return replace(
            self,
            url=offered.url,
            expires_at=expiry(offered, now),
            external_id=offered.external_id or self.external_id,
        )

    def postponed(self, end: Postponed, now: datetime) -> PendingImage:
        """The image after a try that did not keep it."""
        return replace(
            end.image or self,
            tries=self.tries + 1,
            bad_tries=self.bad_tries + end.bad,
            failing_since=self.failing_since or now,
            retry_at=now + timedelta(seconds=end.after_seconds),
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
    """An image that we stored."""

    #: the provider's order, from 0
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
    #: the number of the attempt that made it
    attempt: int = 1
    #: internal: the storage that holds it
    storage: ArtifactStorage | None = field(default=None, repr=False, compare=False)

    def url(self, expires_seconds: int = 3600) -> str:
        """A URL that reads the image for `expires_seconds`, 1 to 604,800, signed now; a secret.

        Raises NotPossible for an artifact that did not come from `jobs.get` or another function of `jobs`.
        """
        return self._opened().url(self.key, expires_seconds)

    def read(self) -> bytes:
        """The bytes of the image, from the storage.

        Raises StorageError when the storage is away or no longer has the image, and NotPossible as `url` does.
        """
        return self._opened().get(self.key)

    @property
    def is_readable(self) -> bool:
        """Whether `url` and `read` work: the artifact came from `jobs.get` or another function of `jobs`."""
        return self.storage is not None

    def _opened(self) -> ArtifactStorage:
        if self.storage is None:
            raise NotPossible("this artifact is not bound to a storage; get its job with jobs.get")
        return self.storage


@dataclass(frozen=True)
class Missing:
    """An image that was asked for and is not there."""

    #: the provider's order, from 0
    index: int
    #: the kind of failure
    code: Code
    #: one sentence for a person, without secrets
    message: str
    #: internal: what is needed to fetch the image again when a person retries the job
    image: PendingImage | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Postponed:
    """An image that could not be kept this time and is tried again."""

    index: int
    after_seconds: float
    message: str
    #: the URL answered, but with no proper image
    bad: bool = False
    #: the image as it is to be tried next, when its URL changed
    image: PendingImage | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Spooled:
    """An image that came without a URL and waits in a file for the storage."""

    index: int
    name: str


#: how the keeping of an image ended, this time
Kept = Artifact | Missing | Postponed
#: what became of an image that came inside an answer, before the record changed
Inline = Artifact | Missing | Spooled


def expiry(image: Image, now: datetime) -> datetime | None:
    """When the URL of an image that is reported now stops working; None: unknown."""
    if image.expires_at is not None or image.life_seconds is None:
        return image.expires_at
    return now + timedelta(seconds=image.life_seconds)


def awaited(image: Image, number: int, inline: Inline | None, now: datetime) -> PendingImage | Artifact | Missing:
    """What a job knows of an image that attempt `number` offers; `inline` when it came inside the answer."""
    if isinstance(inline, Spooled):
        return PendingImage(image.index, number, spooled=inline.name)
    if inline is not None:
        return inline
    if image.refused is not None:
        return Missing(image.index, image.refused, "the provider withheld this image")
    if image.url is None:
        return Missing(image.index, Code.PROVIDER_ERROR, "the provider gave neither a URL nor an image")
    return PendingImage(image.index, number, image.url, image.external_id, expiry(image, now))
