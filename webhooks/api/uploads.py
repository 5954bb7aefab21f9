"""`POST /v1/uploads`: an image comes as multipart, is checked by its bytes, and can be used in any image field."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from http import HTTPStatus

from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from jobs import providers
from jobs.image_file import Facts, RejectedImage, measure
from jobs.new_job import stage_image
from jobs.request import LocalImage

from ..bodies import read_chunks
from ..problems import InvalidFields, Wrong
from .access import Api
from .models import Upload, json_response

#: the one part of the form
PART = "file"
#: what a form may hold besides the image: boundaries and headers
_FORM_BYTES = 16 << 10
#: up to this size an image is not written to the disk while it comes
_IN_MEMORY_BYTES = 1 << 20


@cache
def max_bytes() -> int:
    """The largest image that some operation takes."""
    operations = map(providers.operation, providers.operation_names())
    return max(rule.max_bytes for operation in operations for rule in operation.request.image_rules.values())


def add(routes: Blueprint, api: Api) -> None:
    """The route."""

    @routes.post("/uploads")
    def add_upload() -> Response:
        boundary, limit = _boundary(), max_bytes()
        with api.seat():
            content = received(_events(read_chunks(request.environ, limit + _FORM_BYTES), boundary), limit)
        facts = _measured(content, limit)
        reference = stage_image(api.darkroom.storage, LocalImage(content), facts)
        upload = Upload(
            reference=reference,
            content_type=facts.content_type,
            width=facts.width,
            height=facts.height,
            size=facts.size,
            sha256=facts.sha256,
        )
        return json_response(upload, HTTPStatus.CREATED)


def _measured(content: bytes, limit: int) -> Facts:
    try:
        return measure(content, max_bytes=limit)
    except RejectedImage as error:
        raise InvalidFields([Wrong(PART, str(error))]) from None


def _boundary() -> bytes:
    """What stands between the parts of the form. Raises UnsupportedMediaType and BadRequest."""
    boundary = request.mimetype_params.get("boundary", "")
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("Send multipart/form-data.")
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise BadRequest
    return boundary.encode()


def _events(body: Iterable[bytes], boundary: bytes) -> Iterator[Event]:
    """The events of the form. Raises BadRequest."""
    decoder = MultipartDecoder(boundary, max_parts=2)  # what it holds is bounded by the body
    try:
        for piece in body:
            decoder.receive_data(piece)
            yield from _known(decoder)
        decoder.receive_data(None)
        yield from _known(decoder)
    except ValueError:
        raise BadRequest from None


def _known(decoder: MultipartDecoder) -> Iterator[Event]:
    while not isinstance(event := decoder.next_event(), NeedData):
        yield event
        if isinstance(event, Epilogue):
            return


def received(events: Iterable[Event], limit: int) -> bytes:
    """The one part; what does not fit into little memory is on the disk while it comes. Raises InvalidFields, and 413."""
    parts = 0
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
        for event in events:
            if isinstance(event, Field | File):
                parts += 1
                _check_part(event, parts)
            elif isinstance(event, Data):
                file.write(event.data)
                if file.tell() > limit:
                    raise RequestEntityTooLarge
        if not parts:
            raise InvalidFields([Wrong(PART, "is missing")])
        file.seek(0)
        return file.read()


def _check_part(part: Field | File, number: int) -> None:
    if part.name != PART:
        raise InvalidFields([Wrong(str(part.name)[:80], f"is unknown; the one part is {PART}")])
    if not isinstance(part, File):
        raise InvalidFields([Wrong(PART, "is no file: it needs a filename")])
    if number > 1:
        raise InvalidFields([Wrong(PART, "is there more than once")])
