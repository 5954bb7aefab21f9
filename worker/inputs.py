"""The input images of a request: fetched, read back from where they were staged, and checked before anything is paid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from jobs.errors import DarkroomError, StorageError
from jobs.image_file import RejectedImage, measure
from jobs.new_job import reference_key
from jobs.providers._contract import InputImage
from jobs.request import ImageRule, Request
from jobs.storage import Storage

from .image_store import FETCH_TIMEOUT_SECONDS
from .transport import ForbiddenAddress, TooLarge, Transport, TransportError

_CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}

#: refusals of a host that is asked too soon or too often
_PASSING = frozenset({408, 425, 429})


class InputError(DarkroomError):
    """An input image cannot be had. `lasting` tells whether trying again is of no use."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True)
class Inputs:
    """Gets the images whose bytes a provider wants."""

    storage: Storage
    transport: Transport
    #: runs a blocking call on the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]

    async def pictures(self, request: Request) -> Mapping[str, InputImage]:
        """The pictures, by their reference or URL. Raises InputError."""
        return {reference: await self._picture(field, rule, reference) for field, rule, reference in _wanted(request)}

    async def _picture(self, field: str, rule: ImageRule, reference: str) -> InputImage:
        if reference.startswith("staged:"):
            return await self._staged(field, reference)
        try:
            response = await self.transport.download(
                reference, timeout_seconds=FETCH_TIMEOUT_SECONDS, max_bytes=rule.max_bytes
            )
        except TransportError as error:
            lasting = isinstance(error, ForbiddenAddress | TooLarge)
            raise InputError(f"{field}: {error}", lasting=lasting) from error
        if not response.ok:
            lasting = 400 <= response.status < 500 and response.status not in _PASSING
            raise InputError(f"{field}: its host answered {response.status}", lasting=lasting)
        return await self._checked(field, rule, response.body)

    async def _staged(self, field: str, reference: str) -> InputImage:
        """The picture under a reference; it was checked when it was staged."""
        try:
            content = await self.blocking(lambda: self.storage.get(reference_key(reference)))
        except StorageError as error:
            raise InputError(f"{field}: {error}", lasting=not error.retryable) from error
        extension = PurePosixPath(reference).suffix.removeprefix(".")
        return InputImage(content, _CONTENT_TYPES[extension], _file_name(field, extension))

    async def _checked(self, field: str, rule: ImageRule, content: bytes) -> InputImage:
        try:
            facts = await self.blocking(lambda: measure(content, max_bytes=rule.max_bytes))
        except RejectedImage as error:
            raise InputError(f"{field}: {error}", lasting=True) from error
        if facts.content_type not in rule.content_types:
            raise InputError(f"{field}: {facts.content_type} is not taken here", lasting=True)
        return InputImage(content, facts.content_type, _file_name(field, facts.extension))


def _wanted(request: Request) -> list[tuple[str, ImageRule, str]]:
    """The images whose bytes the provider wants: field, rule and reference or URL."""
    return [
        (field, rule, image)
        for field, rule, image in request.images()
        if isinstance(image, str) and (rule.wants_bytes or image.startswith("staged:"))
    ]


def _file_name(field: str, extension: str) -> str:
    return f"{field.replace('.', '-')}.{extension}"
