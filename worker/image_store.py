"""Fetches images and stores them: an image that a provider reported becomes an artifact, is missing, or is postponed.

An image is fetched under a size limit; type, dimensions and integrity are read from its bytes. It is written once, under a key that
job, attempt and index determine: a second worker, or the same one after a crash, uses the object that exists.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from jobs import logs
from jobs.errors import StorageError
from jobs.image_file import Facts, RejectedImage, inspect
from jobs.images import Artifact, AtUrl, InlineResult, InSpool, Missing, PendingImage, Postponed, Spooled, StoreResult
from jobs.job import Job
from jobs.providers._contract import Response
from jobs.report import Code, Report, Succeeded
from jobs.storage import Storage, Uploaded, artifact_key, artifact_metadata, read_upload
from jobs.storage.spool import Spool, SpoolFull

from .calls import ProviderCalls
from .limits import MemoryBudget
from .transport import (
    FETCH_TIMEOUT_SECONDS,
    CutShort,
    ForbiddenAddress,
    Reserve,
    TooLarge,
    TooManyRedirects,
    Transport,
    TransportError,
)

T = TypeVar("T")

#: the pauses after downloads of one image that were not a valid image, in seconds; after the last one it is given up
BAD_TRY_SECONDS = (2.0, 8.0, 16.0)
#: the longest pause between two tries of an image whose host or whose storage is away, in seconds
MAX_PAUSE_SECONDS = 60.0
#: the pause before an image that only another worker can fetch (by its spool, or its key) is looked at again, in seconds
ELSEWHERE_SECONDS = 5.0
#: how long an image is retried whose URL has no known expiry
RETRY_FOR = timedelta(days=1)
#: the time for one upload, in seconds
UPLOAD_TIMEOUT_SECONDS = 120.0

#: statuses of a host that will not serve the image under this URL any more
_GONE = frozenset({401, 403, 404, 410})
_UPLOAD_TRIES = 3


@dataclass(frozen=True)
class ImageStore:
    """Fetches, checks and stores images for one process."""

    #: the largest image that is accepted, in bytes
    max_image_bytes: int
    storage: Storage
    spool: Spool
    transport: Transport
    calls: ProviderCalls
    budget: MemoryBudget
    #: runs a blocking call in the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]
    now: Callable[[], datetime]
    #: called with the name of each step, so that a test can end the process there
    checkpoint: Callable[[str], None] = lambda _: None

    # --- images with a URL, or in the spool -----------------------------------------------------------------------

    async def store_pending(self, job: Job) -> Mapping[int, StoreResult]:
        """Try each pending image whose time has come, and return what became of it by its index."""
        now, started_at = self.now(), asyncio.get_running_loop().time()
        ready = [image for image in job.pending if image.retry_at is None or image.retry_at <= now]

        async def store(image: PendingImage) -> StoreResult:
            result = await self.store(job, image)
            fields: logs.Fields = {"outcome": "stored"}
            if isinstance(result, Missing):
                fields = {"outcome": "missing", "code": result.code, "reason": result.message}
            elif isinstance(result, Postponed):
                until = self.now() + timedelta(seconds=result.after_seconds)
                fields = {"outcome": "postponed", "reason": result.message, "until": until}
            fields["duration_seconds"] = asyncio.get_running_loop().time() - started_at
            fields |= {"job": job.id, "attempt": image.attempt, "operation": job.operation, "image": image.index}
            logs.event("image tried", fields, level=logging.INFO if isinstance(result, Artifact) else logging.WARNING)
            return result

        results = await asyncio.gather(*map(store, ready))
        self.checkpoint("images tried")
        return {image.index: result for image, result in zip(ready, results, strict=True)}

    async def store(self, job: Job, image: PendingImage) -> StoreResult:
        """Fetch one image and store it. Never raises for anything that a host or a storage may do."""
        try:
            async with self.budget.reservation() as reserve:
                source = image.source
                if isinstance(source, InSpool):
                    content = await self._run(lambda: self.spool.read(source.name))
                    return await self._write(job, image.attempt, image.index, content)
                response = await self._fetch(image, source.url, reserve)
                self.checkpoint("image fetched")
                if response.ok:
                    return await self._write(job, image.attempt, image.index, response.body)
            return await self._read_refusal(job, image, response.status)
        except RejectedImage as error:
            if error.refetchable and isinstance(image.source, AtUrl):
                return self._fetch_again(image, str(error))
            return Missing(image.index, Code.RESULT_REJECTED, str(error))
        except CutShort as error:
            return self._fetch_again(image, str(error))
        except (ForbiddenAddress, TooLarge, TooManyRedirects) as error:
            return Missing(image.index, Code.RESULT_REJECTED, str(error))
        except TransportError as error:
            return self._postpone(image, Code.RESULT_EXPIRED, str(error))
        except StorageError as error:
            return self._postpone(image, Code.STORAGE_ERROR, str(error))
        except FileNotFoundError:
            # The worker whose spool has it finds the job as well.
            said = "its bytes are in the spool of another worker"
            return self._postpone(image, Code.STORAGE_ERROR, said, ELSEWHERE_SECONDS)

    async def _fetch(self, image: PendingImage, url: str, reserve: Reserve) -> Response:
        """The answer of the image's host. A last one that may not be whole is taken: the image itself tells whether it is."""
        try:
            return await self.transport.download(
                url, timeout_seconds=FETCH_TIMEOUT_SECONDS, max_bytes=self.max_image_bytes, reserve=reserve
            )
        except CutShort as error:
            if image.bad_tries < len(BAD_TRY_SECONDS):
                raise
            return error.response

    async def _read_refusal(self, job: Job, image: PendingImage, status: int) -> StoreResult:
        """The host answered without the image: the URL may have expired, or not work yet."""
        said = f"the image's host answered {status}"
        expired = self._is_past(image)
        if status not in _GONE and not expired:
            return Postponed(image.index, _pause_seconds(image), said)
        if (found := await self._find_stored(job, image.attempt, image.index)) is not None:
            return found
        if job.provider not in self.calls.providers and image.external_id is not None:
            # A worker that has the provider's key may get a new URL.
            since = image.failing_since
            if since and self.now() >= since + RETRY_FOR:
                return Missing(image.index, Code.RESULT_EXPIRED, said)
            return Postponed(image.index, ELSEWHERE_SECONDS, said)
        if image.bad_tries >= len(BAD_TRY_SECONDS):
            return Missing(image.index, Code.RESULT_EXPIRED, said)
        # Where a provider's clocks differ, a URL that should work is refused for a moment; a new one would be refused too.
        fresh = await self.calls.remint(job, image) if expired or image.bad_tries else None
        signed = image.refreshed(fresh, self.now()).source if fresh else image.source
        if not isinstance(signed, AtUrl) or signed == image.source:
            return Postponed(image.index, BAD_TRY_SECONDS[image.bad_tries], said, bad=True)
        return Postponed(
            image.index, 0.0 if expired else BAD_TRY_SECONDS[image.bad_tries], said, bad=True, source=signed
        )

    def _fetch_again(self, image: PendingImage, said: str) -> StoreResult:
        """The download was not a whole image: it is retried a few times, and then given up."""
        if image.bad_tries < len(BAD_TRY_SECONDS):
            return Postponed(image.index, BAD_TRY_SECONDS[image.bad_tries], said, bad=True)
        return Missing(image.index, Code.RESULT_REJECTED, said)

    def _postpone(self, image: PendingImage, code: Code, said: str, pause_seconds: float | None = None) -> StoreResult:
        """Something is away: the image is tried again for as long as its URL works, and then given up with this code."""
        if self._is_past(image):
            return Missing(image.index, code, said)
        return Postponed(image.index, _pause_seconds(image) if pause_seconds is None else pause_seconds, said)

    def _is_past(self, image: PendingImage) -> bool:
        """Whether waiting longer is of no use: the URL has expired, or the image was retried for long enough."""
        since = image.failing_since
        limit = image.expires_at or (since + RETRY_FOR if since else None)
        return limit is not None and self.now() >= limit

    # --- images inside an answer ----------------------------------------------------------------------------------

    async def store_inline(self, job: Job, number: int, report: Report | None) -> Mapping[int, InlineResult]:
        """Store the images inside an answer before the record changes; those that the storage does not accept are spooled."""
        stored: dict[int, InlineResult] = {}
        for image in report.images if isinstance(report, Succeeded) else ():
            if image.content is None:
                continue
            try:
                stored[image.index] = await self._write(job, number, image.index, image.content)
            except RejectedImage as error:
                stored[image.index] = Missing(image.index, Code.RESULT_REJECTED, str(error))
            except (StorageError, TransportError) as error:
                stored[image.index] = await self._spool(job, number, image.index, image.content, str(error))
        return stored

    async def _spool(self, job: Job, number: int, index: int, content: bytes, why: str) -> Spooled | Missing:
        try:
            name = await self._run(lambda: self.spool.write(_spool_prefix(job.id, number, index), content))
        except (SpoolFull, OSError) as error:
            # The text of an OSError names a path of this host.
            spool = str(error) if isinstance(error, SpoolFull) else error.strerror or type(error).__name__
            return Missing(index, Code.STORAGE_ERROR, f"{why}; and the spool: {spool}")
        fields: logs.Fields = {"job": job.id, "attempt": number, "operation": job.operation, "image": index}
        logs.event("image spooled", fields, level=logging.WARNING, reason=why)
        self.checkpoint("image spooled")
        return Spooled(index, name)

    async def find_inline(self, job: Job, number: int) -> Mapping[int, InlineResult]:
        """Return the images inside an answer that a dead worker stored, by index: those in the storage and in this host's spool."""
        found: dict[int, InlineResult] = {}
        for index in range(job.images_expected):
            try:
                artifact = await self._find_stored(job, number, index)
            except RejectedImage as error:  # the object was damaged since, or the limits were lowered
                found[index] = Missing(index, Code.RESULT_REJECTED, str(error))
                continue
            if artifact is not None:
                found[index] = artifact
                continue
            prefix = _spool_prefix(job.id, number, index)
            names = [name for name in await self._run(self.spool.names) if name.startswith(prefix)]
            if names:
                found[index] = Spooled(index, names[0])
        return found

    async def spooled_attempts(self) -> frozenset[tuple[str, int]]:
        """Return the jobs and attempts that have images in this host's spool."""
        parts = [name.split("-") for name in await self._run(self.spool.names)]
        return frozenset((part[0], int(part[1])) for part in parts if len(part) == 4 and part[1].isdecimal())

    async def delete_stored_from_spool(self, job: Job, number: int) -> None:
        """Delete the spooled images of an attempt that the record does not wait for: a process stored them, and died."""
        given_up = tuple(missing.image for missing in job.missing if missing.image)
        sources = [image.source for image in (*job.pending, *given_up)]
        awaited = {source.name for source in sources if isinstance(source, InSpool)}
        for name in await self._run(self.spool.names):
            if name.startswith(f"{job.id}-{number}-") and name not in awaited:
                await self.delete_spooled(name)

    async def delete_spooled(self, name: str) -> None:
        """Delete an image from this host's spool."""
        await self._run(lambda: self.spool.delete(name))

    # --- storing --------------------------------------------------------------------------------------------------

    async def _write(self, job: Job, number: int, index: int, content: bytes) -> Artifact:
        """Check the bytes and write them once. Raises RejectedImage, StorageError, TransportError."""
        facts = await self._run(lambda: inspect(content, max_bytes=self.max_image_bytes))
        key = artifact_key(job.id, number, index, facts.extension)
        metadata = artifact_metadata(job.id, job.operation, job.provider, number, facts.sha256)
        for _ in range(_UPLOAD_TRIES):
            uploaded = await self._upload(key, content, facts, metadata)
            if uploaded is Uploaded.STORED:
                self.checkpoint("image stored")
                return _artifact(index, number, key, facts)
            if uploaded is Uploaded.EXISTS:
                return await self._existing(index, number, key)
        raise StorageError(f"put {key}: another writer was faster {_UPLOAD_TRIES} times")

    async def _upload(self, key: str, content: bytes, facts: Facts, metadata: Mapping[str, str]) -> Uploaded:
        request = await self._run(
            lambda: self.storage.upload_request(
                key, content_type=facts.content_type, metadata=metadata, sha256=facts.sha256
            )
        )
        if request is None:
            existing = await self._run(
                lambda: self.storage.put(key, content, content_type=facts.content_type, metadata=metadata)
            )
            return Uploaded.STORED if existing is None else Uploaded.EXISTS
        try:
            response = await self.transport.send(
                request.method,
                request.url,
                headers=request.headers,
                content=content,
                timeout_seconds=UPLOAD_TIMEOUT_SECONDS,
                max_bytes=1 << 16,
                repeatable=True,  # the condition that no object exists makes a second one harmless
            )
        except TransportError as error:
            raise StorageError(f"put {key}: {error.reason}") from error
        return read_upload(response.status, response.body, key=key)

    async def _existing(self, index: int, number: int, key: str) -> Artifact:
        """The object under the key, which another worker wrote."""
        facts = await self._run(lambda: inspect(self.storage.get(key), max_bytes=self.max_image_bytes))
        return _artifact(index, number, key, facts)

    async def _find_stored(self, job: Job, number: int, index: int) -> Artifact | None:
        """The image, if a worker stored it and died before it could report that."""
        prefix = artifact_key(job.id, number, index, "")
        stored = await self._run(lambda: self.storage.list(prefix))
        return await self._existing(index, number, stored[0].key) if stored else None

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
