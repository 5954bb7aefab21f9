"""Images and forms as they come in: base64, URLs and multipart, each checked as a vendor would."""

import base64
import binascii
import io
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from .images import Input, UnreadableInput, read_input
from .wire import Request

_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")


@dataclass(frozen=True)
class Form:
    """A multipart form: what came with a file name, and what came without."""

    fields: dict[str, str]
    files: dict[str, bytes]


def read_form(request: Request) -> Form | None:
    """The multipart form in a request, or None if there is none that can be read."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != "multipart/form-data":
        return None
    try:
        # Werkzeug's own choice for a file is a temporary file that nobody closes.
        parser = FormDataParser(silent=False, stream_factory=lambda *_sizes, **_names: io.BytesIO())
        _, fields, files = parser.parse(io.BytesIO(request.body), kind, len(request.body), options)
    except (ValueError, HTTPException):
        return None
    return Form(fields.to_dict(), {name: part.read() for name, part in files.items()})


def read_image(text: str, *, data_uri: bool) -> Input:
    """An image given as an http(s) URL or as base64, with or without a `data:` prefix; raises `UnreadableInput`.

    What a URL points to is never fetched: the sandbox works offline and draws the host's name instead.
    """
    parts = urlsplit(text[:2048])
    if parts.scheme in {"http", "https"} and parts.hostname:
        return Input(host=parts.hostname)
    prefix = _DATA_URI.match(text)
    if prefix and not data_uri:
        raise UnreadableInput("expected base64 without a data: prefix")
    try:
        return read_input(base64.b64decode(text[prefix.end() if prefix else 0 :], validate=True))
    except (binascii.Error, ValueError) as error:
        raise UnreadableInput("neither a URL nor base64") from error
