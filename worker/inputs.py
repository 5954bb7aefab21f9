"""The input images of a request: fetched or read from the storage, and checked, before anything is paid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from jobs.errors import DarkroomError, StorageError
from jobs.image_file import RejectedImage, measure
from jobs.providers._contract import InputImage
from jobs.request import ImageRule, Request
from jobs.storage import Storage
from jobs.storage.staged import reference_key

from .transport import FETCH_TIMEOUT_SECONDS, ForbiddenAddress, TooLarge, Transport, TransportError

_CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}

#: statuses of a host that is asked too soon or too often; other 4xx are lasting
_PASSING = frozenset({408, 425, 429})


class InputError(DarkroomError):
    """An attempt cannot be prepared. `lasting` tells whether trying again is of no use."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True)
class Inputs:
    """Reads the input images that a provider needs as bytes."""

    storage: Storage
    transport: Transport
    #: runs a blocking call in the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]

    async def fetch(self, request: Request) -> Mapping[str, InputImage]:
        """Return the images whose bytes the provider needs, by their reference or URL. Raises InputError."""
        images: dict[str, InputImage] = {}
        for field, rule, reference in request.images():
            if not isinstance(reference, str):
                continue
            if not reference.startswith("staged:"):
                if rule.wants_bytes:
                    images[reference] = await self._download(field, rule, reference)
                continue
            # It was checked when it was staged.
            key, extension = reference_key(reference), PurePosixPath(reference).suffix.removeprefix(".")
            try:
                content = await self.blocking(partial(self.storage.get, key))
            except StorageError as error:
                raise InputError(f"{field}: {error}", lasting=not error.retryable) from error
            images[reference] = InputImage(content, _CONTENT_TYPES[extension], _file_name(field, extension))
        return images

    async def _download(self, field: str, rule: ImageRule, url: str) -> InputImage:
        """Fetch and check the image at a URL."""
        try:
            response = await self.transport.download(
                url, timeout_seconds=FETCH_TIMEOUT_SECONDS, max_bytes=rule.max_bytes
            )
        except TransportError as error:
            lasting = isinstance(error, ForbiddenAddress | TooLarge)
            raise InputError(f"{field}: {error}", lasting=lasting) from error
        if not response.ok:
            lasting = 400 <= response.status < 500 and response.status not in _PASSING
            raise InputError(f"{field}: its host answered {response.status}", lasting=lasting)
        try:
            facts = await self.blocking(lambda: measure(response.body, max_bytes=rule.max_bytes))
        except RejectedImage as error:
            raise InputError(f"{field}: {error}", lasting=True) from error
        if facts.content_type not in rule.content_types:
            accepted = ", ".join(rule.content_types)
            raise InputError(f"{field}: {facts.content_type} is not accepted here; accepted: {accepted}", lasting=True)
        return InputImage(response.body, facts.content_type, _file_name(field, facts.extension))


def _file_name(field: str, extension: str) -> str:
    return f"{field.replace('.', '-')}.{extension}"
