"""Bodies of bounded size, time and depth, whether or not they say their length."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout
from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: how long a client may take to send a body, piece by piece
READ_SECONDS = 60.0
#: how deep JSON may be nested
MAX_DEPTH = 32
#: how many values JSON may hold: each takes memory, however short it is written
MAX_VALUES = 300_000

_PIECE = 1 << 16


def pieces(environ: WSGIEnvironment, limit: int) -> Iterator[bytes]:
    """The request's body, piece by piece. Raises RequestEntityTooLarge and RequestTimeout, the framework's 413 and 408."""
    # A chunked body that reaches the framework's own limit is cut there without a word, so it gets one byte more.
    stream = get_input_stream(environ, max_content_length=limit + 1)
    size, give_up_at = 0, time.monotonic() + READ_SECONDS
    while piece := stream.read(_PIECE):
        size += len(piece)
        if size > limit:
            raise RequestEntityTooLarge
        if time.monotonic() > give_up_at:
            raise RequestTimeout
        yield piece


def read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """The request's body of at most `limit` bytes. Raises what `pieces` does."""
    return b"".join(pieces(environ, limit))


def read_json(body: bytes) -> Any:
    """The JSON value of a body, strictly: UTF-8, no NaN, nothing huge or deep. Raises BadRequest."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise BadRequest
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, parse_float=_number)
    except (ValueError, RecursionError):
        raise BadRequest from None
    if _depth(value) > MAX_DEPTH:
        raise BadRequest
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _number(text: str) -> float | int:
    """JSON knows one kind of number: 4.0 is the integer 4."""
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number beyond all bounds")
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            break
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
