"""Fetches images and keeps them: what a provider reported ends as an artifact, as missing, or is postponed.

An image is fetched under a size cap, its type, dimensions and wholeness are read from its bytes, and it is written once under a
key that job, attempt and index determine: a second worker, or the same one after a crash, adopts what stands there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from jobs import providers, transitions
from jobs.errors import StorageError
from jobs.image_file import Facts, RejectedImage, inspect
from jobs.images import Artifact, Inline, Kept, Missing, PendingImage, Postponed, Spooled, expiry
from jobs.job import Job
from jobs.providers._contract import Context, Response
from jobs.report import Code, Image, Report, Succeeded
from jobs.settings import ProviderSettings, Settings
from jobs.storage import Storage, Uploaded, artifact_key, artifact_metadata, read_upload
from jobs.storage.spool import Spool, SpoolFull

from .limits import MemoryBudget
from .transport import CutShort, ForbiddenAddress, TooLarge, TooManyRedirects, Transport, TransportError

T = TypeVar("T")

#: fetches of one image that may bring no proper image, and the seconds before the next
BAD_TRY_SECONDS = (2.0, 8.0, 16.0)
#: the longest pause between two tries of an image whose host or whose storage is away
MAX_PAUSE_SECONDS = 60.0
#: the pause before a worker looks again at an image that waits for another worker: for its spool, or its key
ELSEWHERE_SECONDS = 5.0
#: how long we try to keep an image whose URL does not say when it dies
PATIENCE = timedelta(days=1)
FETCH_TIMEOUT_SECONDS = 120.0
UPLOAD_TIMEOUT_SECONDS = 120.0

_DEAD = frozenset({401, 403, 404, 410})
_UPLOAD_TRIES = 3


@dataclass(frozen=True)
class ImageStore:
    """Fetches, checks and keeps images for one process."""

    settings: Settings
    providers: Mapping[str, ProviderSettings]
    storage: Storage
    spool: Spool
    transport: Transport
    budget: MemoryBudget
    #: runs a blocking call on the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]
    now: Callable[[], datetime]
    #: called with the name of each step, so that a test can end the process there
    checkpoint: Callable[[str], None] = lambda _: None

    # --- images that came by URL ----------------------------------------------------------------------------------

    async def keep(self, job: Job, image: PendingImage) -> Kept:
        """Fetches one image and stores it. Never raises for what a host or a storage may do."""
        try:
            async with self.budget.reservation() as reserve:
                content = await self._content(image, reserve)
                if isinstance(content, bytes):
                    return await self._stored(job, image.attempt, image.index, content)
            return await self._refused(job, image, content.status)
        except RejectedImage as error:
            return self._rejected(image, error)
        except StorageError as error:
            return self._without_storage(image, error)
        except TransportError as error:
            return self._unreachable(image, error)
        except FileNotFoundError:
            return self._elsewhere(image)

    async def _content(self, image: PendingImage, reserve: Callable[[int], Awaitable[None]]) -> bytes | Response:
        """The image's bytes, or the answer that brought none."""
        if image.spooled is not None:
            name = image.spooled
            return await self._run(lambda: self.spool.read(name))
        response = await self.transport.download(
            image.url or "",
            timeout_seconds=FETCH_TIMEOUT_SECONDS,
            max_bytes=self.settings.max_image_bytes,
            reserve=reserve,
        )
        self.checkpoint("image fetched")
        return response.body if response.ok else response

    def _rejected(self, image: PendingImage, error: RejectedImage) -> Kept:
        if error.refetchable and image.spooled is None:
            return self._spoiled(image, str(error))
        return Missing(image.index, Code.RESULT_REJECTED, str(error))

    def _spoiled(self, image: PendingImage, said: str) -> Kept:
        """The URL brought no whole image: a few more fetches, then it is given up."""
        if image.bad_tries < len(BAD_TRY_SECONDS):
            return Postponed(image.index, BAD_TRY_SECONDS[image.bad_tries], said, bad=True)
        return Missing(image.index, Code.RESULT_REJECTED, said)

    def _without_storage(self, image: PendingImage, error: StorageError) -> Kept:
        """The storage is away: the image is tried again for as long as its URL lives."""
        if self._past(image):
            return Missing(image.index, Code.STORAGE_ERROR, str(error))
        return Postponed(image.index, _pause_seconds(image), str(error))

    def _unreachable(self, image: PendingImage, error: TransportError) -> Kept:
        if isinstance(error, CutShort):
            return self._spoiled(image, str(error))
        if isinstance(error, ForbiddenAddress | TooLarge | TooManyRedirects):
            return Missing(image.index, Code.RESULT_REJECTED, str(error))
        if self._past(image):
            return Missing(image.index, Code.RESULT_EXPIRED, str(error))
        return Postponed(image.index, _pause_seconds(image), str(error))

    def _elsewhere(self, image: PendingImage) -> Kept:
        """The file lies in the spool of another host, whose worker will come upon the job too."""
        said = "its bytes wait in the spool of another worker"
        if self._past(image):
            return Missing(image.index, Code.STORAGE_ERROR, said)
        return Postponed(image.index, ELSEWHERE_SECONDS, said)

    async def _refused(self, job: Job, image: PendingImage, status: int) -> Kept:
        """The host answered, but with no image: the URL may be dead, or not alive yet."""
        said = f"the image's host answered {status}"
        if status not in _DEAD and not self._past(image):
            return Postponed(image.index, _pause_seconds(image), said)
        if (found := await self._found(job, image)) is not None:
            return found
        if job.provider not in self.providers and image.external_id is not None:
            # The vendor may sign it anew for a worker that has its key.
            return self._unserved(image, said)
        if image.bad_tries >= len(BAD_TRY_SECONDS):
            return Missing(image.index, Code.RESULT_EXPIRED, said)
        # A URL that should live is refused for a moment where the clocks of a vendor disagree; one minted anew would be too.
        dead = self._past(image)
        fresh = await self._reminted(job, image) if dead or image.bad_tries else None
        pause = 0.0 if dead and fresh else BAD_TRY_SECONDS[image.bad_tries]
        return Postponed(image.index, pause, said, bad=True, image=fresh)

    def _unserved(self, image: PendingImage, said: str) -> Kept:
        since = image.failing_since
        if since and self.now() >= since + PATIENCE:
            return Missing(image.index, Code.RESULT_EXPIRED, said)
        return Postponed(image.index, ELSEWHERE_SECONDS, said)

    async def _reminted(self, job: Job, image: PendingImage) -> PendingImage | None:
        """The image with its URL signed anew, where the vendor can do that."""
        operation, settings = providers.operation(job.operation), self.providers.get(job.provider)
        if settings is None:  # and nobody else could either: the vendor gave no id of the image
            return None
        context = Context(
            transitions.attempt_key(job, image.attempt),
            api_key=settings.api_key.get_secret_value(),
            options=settings.options,
        )
        call = operation.remint(Image(image.index, external_id=image.external_id), context)
        if call is None:
            return None
        try:
            response = await self.transport.send(
                call.method,
                settings.base_url + call.path,
                headers=call.headers,
                timeout_seconds=call.timeout_seconds,
                max_bytes=1 << 20,
            )
        except TransportError:
            return None
        fresh = operation.read_remint(response)
        if fresh is None or fresh.url is None:
            return None
        return replace(image, url=fresh.url, expires_at=expiry(fresh, self.now()))

    def _past(self, image: PendingImage) -> bool:
        """Whether waiting longer is of no use: the URL is dead, or we have tried for long enough."""
        since = image.failing_since
        limit = image.expires_at or (since + PATIENCE if since else None)
        return limit is not None and self.now() >= limit

    # --- images that came inside an answer ------------------------------------------------------------------------

    async def keep_inline(self, job: Job, number: int, report: Report) -> Mapping[int, Inline]:
        """Stores the images that came inside an answer, before the record changes; what the storage does not take is spooled."""
        if not isinstance(report, Succeeded):
            return {}
        inline = [image for image in report.images if image.content is not None]
        return {
            image.index: await self._kept_inline(job, number, image.index, image.content or b"") for image in inline
        }

    async def _kept_inline(self, job: Job, number: int, index: int, content: bytes) -> Inline:
        try:
            return await self._stored(job, number, index, content)
        except RejectedImage as error:
            return Missing(index, Code.RESULT_REJECTED, str(error))
        except (StorageError, TransportError) as error:
            return await self._spooled(job, number, index, content, str(error))

    async def _spooled(self, job: Job, number: int, index: int, content: bytes, why: str) -> Inline:
        try:
            name = await self._run(lambda: self.spool.write(_spool_prefix(job.id, number, index), content))
        except (SpoolFull, OSError) as error:
            return Missing(index, Code.STORAGE_ERROR, f"{why}; and the spool: {error}")
        self.checkpoint("image spooled")
        return Spooled(index, name)

    async def rescued(self, job: Job, number: int) -> Mapping[int, Inline]:
        """What a worker that died had kept of an answer with images inside, by index: in the storage, or in our spool."""
        ends: dict[int, Inline] = {}
        for index in range(job.images_expected):
            kept = await self._found(job, PendingImage(index, number)) or await self._spooled_before(job, number, index)
            if kept is not None:
                ends[index] = kept
        return ends

    async def spooled_attempts(self) -> frozenset[tuple[str, int]]:
        """The jobs and attempts of which images wait in this host's spool."""
        names = await self._run(self.spool.names)
        parts = [name.split("-") for name in names]
        return frozenset((job_id, int(number)) for job_id, number, *_ in (part for part in parts if len(part) == 4))

    async def _spooled_before(self, job: Job, number: int, index: int) -> Spooled | None:
        prefix = _spool_prefix(job.id, number, index)
        names = await self._run(self.spool.names)
        return next((Spooled(index, name) for name in names if name.startswith(prefix)), None)

    # --- storing --------------------------------------------------------------------------------------------------

    async def _stored(self, job: Job, number: int, index: int, content: bytes) -> Artifact:
        """Checks the bytes and writes them once. Raises RejectedImage, StorageError, TransportError."""
        limit = self.settings.max_image_bytes
        facts = await self._run(lambda: inspect(content, max_bytes=limit))
        key = artifact_key(job.id, number, index, facts.extension)
        metadata = artifact_metadata(job.id, job.operation, job.provider, number, facts.sha256)
        for _ in range(_UPLOAD_TRIES):
            end = await self._uploaded(key, content, facts, metadata)
            if end is Uploaded.STORED:
                self.checkpoint("image stored")
                return _artifact(index, number, key, facts)
            if end is Uploaded.EXISTS:
                return await self._adopted(index, number, key)
        raise StorageError(f"put {key}: other writers were faster {_UPLOAD_TRIES} times")

    async def _uploaded(self, key: str, content: bytes, facts: Facts, metadata: Mapping[str, str]) -> Uploaded:
        request = await self._run(
            lambda: self.storage.upload_request(
                key, content_type=facts.content_type, metadata=metadata, sha256=facts.sha256
            )
        )
        if request is None:
            stood = await self._run(
                lambda: self.storage.put(key, content, content_type=facts.content_type, metadata=metadata)
            )
            return Uploaded.STORED if stood is None else Uploaded.EXISTS
        try:
            response = await self.transport.send(
                request.method,
                request.url,
                headers=request.headers,
                content=content,
                timeout_seconds=UPLOAD_TIMEOUT_SECONDS,
                max_bytes=1 << 16,
            )
        except TransportError as error:
            raise StorageError(f"put {key}: {error.reason}") from error
        return read_upload(response.status, response.body, key=key)

    async def _adopted(self, index: int, number: int, key: str) -> Artifact:
        """What stands under the key: a worker before us wrote it."""
        limit = self.settings.max_image_bytes
        facts = await self._run(lambda: inspect(self.storage.get(key), max_bytes=limit))
        return _artifact(index, number, key, facts)

    async def _found(self, job: Job, image: PendingImage) -> Artifact | None:
        """The image, where a worker before us stored it and died before it could say so."""
        prefix = artifact_key(job.id, image.attempt, image.index, "")
        stored = await self._run(lambda: self.storage.list(prefix))
        return await self._adopted(image.index, image.attempt, stored[0].key) if stored else None

    async def _run(self, call: Callable[[], T]) -> T:
        result: T = await self.blocking(call)
        return result


def _spool_prefix(job_id: str, number: int, index: int) -> str:
    return f"{job_id}-{number}-{index}-"


def _artifact(index: int, number: int, key: str, facts: Facts) -> Artifact:
    return Artifact(
        index=index,
        key=key,
        content_type=facts.content_type,
        size=facts.size,
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        attempt=number,
    )


def _pause_seconds(image: PendingImage) -> float:
    return min(float(2 ** min(image.tries, 10)), MAX_PAUSE_SECONDS)
