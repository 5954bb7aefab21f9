"""What is forgiven in an answer, and why. What we send and what we serve stays strict.

A gateway that breaks a rule of HTTP may have rendered and charged all the same, and its answer is the only copy of the result. So
an answer is refused only where it cannot be read. Two kinds of faults are forgiven:

- the harmless ones leave one reading: the answer is taken as if it were correct;
- the doubtful ones leave open where the body ends, or what it is. Such a body must prove that it is whole: an answer of an API by
  being one JSON object or array, an image by its own structure. Without that proof nobody saw how the request ended.

Pure: text and bytes in, values out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Leniency:
    """One fault that is forgiven."""

    #: what the answer does, as the end of "its answer ..."
    fault: str
    #: who sends that, or what makes it safe to read
    why: str
    #: whether the body must prove that it is whole
    doubtful: bool = False


BARE_NEWLINE = Leniency("ends its lines with LF alone", "scripts do; RFC 9112, section 2.2 lets a reader accept it")
LEADING_LINES = Leniency("begins with empty lines", "the rest of an interim answer or of a hook's output")
NO_REASON = Leniency("has no reason phrase", "many servers leave it out; nothing is read from it")
OTHER_VERSION = Leniency(
    "names another version of HTTP", "a proxy that copies HTTP/2 into the line; the syntax is the same"
)
FOLDED_LINE = Leniency(
    "folds a header over two lines", "old, and in RFC 9112, section 5.2; the lines are joined by a space"
)
ODD_NAME = Leniency(
    "has a space or a control character in a header's name", "a title used as a name; we ask for none of these"
)
LATIN_1 = Leniency("has Latin-1 in a header", "as HTTP was once defined; each byte is a character")
IDENTITY = Leniency("has Transfer-Encoding: identity", "from RFC 2616; it says that there is none")
CHUNKED_TWICE = Leniency(
    "is chunked twice by its headers", "each of two layers adds the header; the body was chunked once"
)
CHUNKED_WITH_LENGTH = Leniency(
    "has a length and is chunked", "a proxy adds one of them; RFC 9112, section 6.3 takes the chunks"
)
LENGTH_TWICE = Leniency("repeats its Content-Length", "each of two layers adds it; the values are equal")
CHUNK_EXTENSION = Leniency("has extensions or spaces in a chunk's size", "allowed, and ignored by everybody")
NO_CODING = Leniency("names a Content-Encoding that is none", "a charset or a form of upload in the wrong header")
RAW_DEFLATE = Leniency(
    "is deflate without the zlib header", "servers disagree about `deflate` since 1999; clients read both"
)

NO_COLON = Leniency("has a header line without a colon", "a script's output among the headers", doubtful=True)
BAD_LENGTH = Leniency(
    "has a Content-Length that is not one number", "`-1` or `undefined` where it is unknown", doubtful=True
)
OTHER_CODING = Leniency(
    "has a Transfer-Encoding that was not asked for", "a content coding in the wrong header", doubtful=True
)
NOT_CHUNKED = Leniency(
    "is not chunked, though its header says so", "a proxy that unpacks the chunks and keeps the header", doubtful=True
)
BAD_CHUNK = Leniency("has a broken chunk", "a proxy that writes into the chunks", doubtful=True)
CUT = Leniency(
    "was cut short",
    "a length in characters instead of bytes, or a worker that dies before the last chunk",
    doubtful=True,
)
LENGTH_TOO_SMALL = Leniency(
    "is longer than its Content-Length", "a length in characters instead of bytes", doubtful=True
)
UNREADABLE_CODING = Leniency(
    "has a Content-Encoding that was not asked for, or is not what it says",
    "a proxy that unpacks the body and keeps the header",
    doubtful=True,
)

TABLE: Sequence[Leniency] = tuple(value for value in list(globals().values()) if isinstance(value, Leniency))

# LEADING_LINES, NO_REASON, OTHER_VERSION
_STATUS_LINE = re.compile(r"HTTP/([0-9.]+)[ \t]+([1-9][0-9]{2})(?:[ \t].*)?", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,1000}")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_CONTENT_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
#: a Content-Encoding that encodes nothing (NO_CODING); S3 keeps `aws-chunked` from an upload
_NO_CODINGS = frozenset({"", "identity", "none", "null", "binary", "7bit", "8bit", "utf-8", "utf8", "aws-chunked"})


class Head(NamedTuple):
    """The status and the headers of an answer."""

    status: int
    #: by their names in lower case; the values of a repeated header are joined by ", "
    headers: Mapping[str, str]
    #: whether the other side may keep the connection open
    persistent: bool = True
    doubt: Leniency | None = None


class Framing(NamedTuple):
    """How the end of a body is found: by chunks, by a length, or else by the end of the connection."""

    chunked: bool = False
    length: int | None = None
    doubt: Leniency | None = None
    #: False: a strict reader could find another end, so nothing further is read from this connection
    exact: bool = True


def read_head(raw: bytes) -> Head | None:
    """The head of an answer from its bytes without the empty line that ends it; None if it is not HTTP."""
    status_line, *lines = raw.decode("latin-1").lstrip("\r\n").split("\n")  # LATIN_1, LEADING_LINES
    match = _STATUS_LINE.fullmatch(status_line.rstrip("\r"))
    if match is None:
        return None
    headers: dict[str, str] = {}
    name, doubt = "", None
    for line in lines:  # BARE_NEWLINE: what is left of CRLF is stripped with the value
        before, colon, value = line.partition(":")
        if name and line.startswith((" ", "\t")):
            headers[name] = f"{headers[name]} {line.strip()}"  # FOLDED_LINE
        elif not colon:
            doubt = NO_COLON
        else:
            name, value = before.strip().lower(), value.strip()  # ODD_NAME
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    persistent = match[1] == "1.1" and "close" not in headers.get("connection", "").lower()
    return Head(int(match[2]), headers, persistent, doubt)


def framing(headers: Mapping[str, str]) -> Framing:
    """How the body of an answer with these headers ends."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        codings = {word.strip().lower() for word in coding.split(",")} - {"identity", ""}  # IDENTITY, CHUNKED_TWICE
        if codings:
            chunked = "chunked" in codings
            doubt = None if codings == {"chunked"} else OTHER_CODING
            return Framing(chunked, doubt=doubt, exact=length is None)  # CHUNKED_WITH_LENGTH
    if length is None:
        return Framing()
    values = {value.strip() for value in length.split(",")}  # LENGTH_TWICE
    value = values.pop()
    if values or not _LENGTH.fullmatch(value):
        return Framing(doubt=BAD_LENGTH)
    return Framing(length=int(value))


def chunk_size(line: bytes) -> int | None:
    """The size in the line before a chunk; None if the line is not one. Extensions are ignored."""
    match = _CHUNK_SIZE.fullmatch(line)  # CHUNK_EXTENSION
    return int(match[1], 16) if match else None


def content_codings(headers: Mapping[str, str]) -> Sequence[str] | None:
    """The codings of a body, the last applied one first; None if there is one that cannot be read."""
    value = headers.get("content-encoding")
    if value is None:
        return ()
    words = [word.strip().lower() for word in value.split(",")]
    codings = [word for word in reversed(words) if word not in _NO_CODINGS]
    return codings if _CONTENT_CODINGS.issuperset(codings) else None


def is_whole_json(body: bytes) -> bool:
    """Whether the bytes are one JSON object or array, to its last bracket: only those show that nothing is missing."""
    text = body.strip(b" \t\r\n\0")
    if text[-1:] not in {b"}", b"]"}:
        return False
    try:
        value = json.loads(text.decode(json.detect_encoding(text), "replace"), strict=False)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)
