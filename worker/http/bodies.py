"""Bodies: how one is written, and how one that came compressed is read."""

from __future__ import annotations

import json as jsonlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

import httpx

from jobs.providers._contract import FilePart

_JSON = jsonlib.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_ANY_HEADER = zlib.MAX_WBITS | 32  # gzip or zlib, whichever is there
_NO_HEADER = -zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
#: gzip streams that may follow each other; each costs a copy of the rest
_MAX_STREAMS = 16


class TooLong(Exception):
    """A body decompresses to more bytes than are accepted."""


class Undecodable(Exception):
    """A body is not what its Content-Encoding says."""


def encode_body(
    json: Any, form: Mapping[str, str] | None, files: Sequence[FilePart], content: bytes | None
) -> tuple[Mapping[str, str], Sequence[bytes]]:
    """Return the headers that describe a body, and the body in parts, so that no file is copied."""
    if content is not None:
        return {}, (content,) if content else ()
    if json is not None:
        return {"Content-Type": "application/json"}, (_JSON.encode(json).encode(),)
    if files:
        parts = [(file.name, (file.filename, file.content, file.content_type)) for file in files]
        request = httpx.Request("POST", "http://multipart", data=dict(form or {}), files=parts)
        stream = cast(httpx.SyncByteStream, request.stream)
        return {"Content-Type": request.headers["Content-Type"]}, tuple(stream)
    if form is not None:
        return {"Content-Type": "application/x-www-form-urlencoded"}, (urlencode(form).encode("ascii"),)
    return {}, ()


def text_size(json: Any, enough: int) -> int:
    """The characters of all strings in a JSON value; counting stops when they are more than `enough`."""
    size, values = 0, [json]
    while values and size <= enough:
        value = values.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, Mapping):
            values.extend(value.values())
        elif isinstance(value, list | tuple):
            values.extend(value)
    return size


def decode_body(body: bytes, codings: Sequence[str], max_bytes: int) -> tuple[bytes, bool]:
    """Undo the codings, the last applied one first; returns the body and whether its compressed form was complete.

    Raises TooLong and Undecodable.
    """
    complete = True
    for coding in codings:
        try:
            body, whole = _inflated(body, _ANY_HEADER, max_bytes)
        except zlib.error:
            if coding != "deflate":
                raise Undecodable from None
            try:
                body, whole = _inflated(body, _NO_HEADER, max_bytes)  # RAW_DEFLATE
            except zlib.error:
                raise Undecodable from None
        complete = complete and whole
    return body, complete


def _inflated(body: bytes, wbits: int, max_bytes: int) -> tuple[bytes, bool]:
    """Inflate one or, in gzip, several streams that follow each other; what follows them is ignored."""
    inflator = zlib.decompressobj(wbits)
    plain = inflator.decompress(body, max_bytes + 1)
    rest, parts, size = inflator.unused_data, [plain], len(plain)
    while size <= max_bytes and inflator.eof and rest[:2] == _GZIP_MAGIC and len(parts) < _MAX_STREAMS:
        inflator = zlib.decompressobj(wbits)
        parts.append(inflator.decompress(rest, max_bytes + 1 - size))
        rest, size = inflator.unused_data, size + len(parts[-1])
    if size > max_bytes:
        raise TooLong
    return b"".join(parts), inflator.eof
