"""`POST /v1/uploads`: stores an image that can then be used in any image field."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from http import HTTPStatus
from itertools import chain

from flask import Response, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from jobs import FieldError, InvalidRequest, providers
from jobs.image_file import RejectedImage, measure
from jobs.storage.staged import stage_image

from ..bodies import read_chunks
from .access import api, routes
from .models import Upload, json_response

#: the name of the form's only part
PART = "file"
#: the size of a form besides its image, in bytes: boundaries and headers
_FORM_BYTES = 16 << 10
#: a larger image is written to a temporary file while it arrives, in bytes
_MEMORY_BYTES = 1 << 20


@cache
def max_bytes() -> int:
    """The size of the largest image that some operation accepts, in bytes."""
    operations = map(providers.operation, providers.operation_names())
    return max(rule.max_bytes for operation in operations for rule in operation.request.image_rules.values())


@routes.post("/uploads")
def upload_image() -> Response:
    """Store an image."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType
    with api().wait():
        chunks = read_chunks(request.environ, max_bytes() + _FORM_BYTES)
        content = read_part(form_events(chunks, request.mimetype_params.get("boundary", "")), max_bytes())
    try:
        facts = measure(content, max_bytes=max_bytes())
    except RejectedImage as error:
        raise InvalidRequest(FieldError(PART, str(error))) from None
    upload = Upload(
        reference=stage_image(api().darkroom.storage, content, facts),
        content_type=facts.content_type,
        width=facts.width,
        height=facts.height,
        size=facts.size,
        sha256=facts.sha256,
    )
    return json_response(upload, HTTPStatus.CREATED)


def form_events(chunks: Iterable[bytes], boundary: str) -> Iterator[Event]:
    """Parse a form. Raises BadRequest."""
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise BadRequest
    decoder = MultipartDecoder(boundary.encode(), max_parts=2)  # the size of the body bounds its buffer
    try:
        for chunk in chain(chunks, [None]):
            decoder.receive_data(chunk)
            while not isinstance(event := decoder.next_event(), NeedData):
                yield event
                if isinstance(event, Epilogue):
                    break
    except ValueError:
        raise BadRequest from None


def read_part(events: Iterable[Event], limit: int) -> bytes:
    """The content of the form's only part. Raises InvalidRequest, and RequestEntityTooLarge above `limit` bytes."""
    parts = 0
    with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as file:
        for event in events:
            if isinstance(event, Field | File):
                parts += 1
                if event.name != PART:
                    raise InvalidRequest(FieldError(str(event.name)[:80], f"unknown part; send the image as {PART!r}"))
                if not isinstance(event, File):
                    raise InvalidRequest(FieldError(PART, "should be a file, with a filename"))
                if parts > 1:
                    raise InvalidRequest(FieldError(PART, "should be sent once"))
            elif isinstance(event, Data):
                file.write(event.data)
                if file.tell() > limit:
                    raise RequestEntityTooLarge
        if not parts:
            raise InvalidRequest(FieldError(PART, "required"))
        file.seek(0)
        return file.read()
