"""Reads request bodies with bounds on their size, time and depth, whether or not they declare a length."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout
from werkzeug.wsgi import get_input_stream

from jobs.request import nesting

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: a client must send its body within so many seconds
READ_SECONDS = 60.0
#: the deepest nesting of JSON
MAX_DEPTH = 32
#: the largest number of values in JSON: each takes memory, however short its text is
MAX_VALUES = 300_000

_CHUNK_BYTES = 1 << 16


def read_chunks(environ: WSGIEnvironment, max_bytes: int) -> Iterator[bytes]:
    """Read the body in chunks. Raises RequestEntityTooLarge and RequestTimeout, the framework's 413 and 408."""
    # The framework cuts a chunked body at its limit without an error, so its limit is one byte more than ours.
    stream = get_input_stream(environ, max_content_length=max_bytes + 1)
    size, give_up_at = 0, time.monotonic() + READ_SECONDS
    while chunk := stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise RequestEntityTooLarge
        if time.monotonic() > give_up_at:
            raise RequestTimeout
        yield chunk


def read_body(environ: WSGIEnvironment, max_bytes: int) -> bytes:
    """Read the body. Raises RequestEntityTooLarge and RequestTimeout."""
    return b"".join(read_chunks(environ, max_bytes))


def parse_json(body: bytes) -> Any:
    """Parse a body strictly: UTF-8, no NaN, neither large nor deep. Raises BadRequest, the framework's 400."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise BadRequest
    try:
        value = json.loads(body.decode(), parse_constant=_parse_number, parse_float=_parse_number)
    except (ValueError, RecursionError):
        raise BadRequest from None
    if nesting(value) > MAX_DEPTH:
        raise BadRequest
    return value


def _parse_number(text: str) -> float | int:
    """JSON has one kind of number: 4.0 is the integer 4."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("NaN and Infinity are not valid JSON, and this number may be too large")
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
