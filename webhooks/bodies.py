"""Bodies of bounded size, whether or not they say their length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """The request's body of at most `limit` bytes. Raises RequestEntityTooLarge, the framework's 413."""
    # A chunked body that reaches the framework's own limit is cut there without a word, so it gets one byte more.
    body = get_input_stream(environ, max_content_length=limit + 1).read()
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body
