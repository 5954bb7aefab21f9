"""Reads what a provider sent without trusting it: any type, length or nesting is possible.

Only `parse_json` raises (ValueError). The other functions return an empty value for anything unexpected.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

#: how many images of one answer are read; no provider renders more than 8
MAX_IMAGES = 64

_URL = re.compile(r"https?://[\x21-\x7e]{1,8000}", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(?!\.+$)[\x21-\x7e]{1,200}")
_DATA_URI = re.compile(r"data:[\w/+.-]{0,80};base64,", re.IGNORECASE)
_MODERATION = re.compile(
    r"moderat|content[ _-]?(policy|security|violation|filter)|risk[ _-]?control|safety|nsfw|unsafe|inappropriate"
    r"|prohibited[ _-]?content|sensitive[ _-](?:word|content|information)",
    re.IGNORECASE,
)
_OVERLOAD = re.compile(
    r"overload|saturat|throttl|rate[ _-]?limit|too[ _-]many[ _-]requests|at (?:full )?capacity", re.IGNORECASE
)


def parse_json(body: bytes | str) -> Any:
    """The JSON value of these bytes. Raises ValueError when they are not JSON, or nested too deeply."""
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def mapping(value: Any) -> Mapping[str, Any]:
    """The JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The JSON array, cut to `MAX_IMAGES`, or an empty one."""
    return value[:MAX_IMAGES] if isinstance(value, list) else []


def text(value: Any) -> str:
    """The string, or an empty one; an integer as its digits, since providers write ids and codes both ways."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**18 else ""
    return value if isinstance(value, str) else ""


def first(body: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these fields that is not empty, or None."""
    return next((body[name] for name in names if body.get(name)), None)


def number(value: Any) -> float | None:
    """The number, at least 0 and below 10^15, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 10**15 else None


def identifier(value: Any) -> str | None:
    """The provider's id, if it is printable ASCII of at most 200 characters. Quote it before it goes into a path."""
    found = text(value)
    return found if _IDENTIFIER.fullmatch(found) else None


def url(value: Any) -> str | None:
    """The URL byte for byte as the provider wrote it, or None when it is not an http(s) URL in printable ASCII."""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        return None
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return value if usable else None


def content(value: Any) -> bytes | None:
    """The bytes of a base64 string, with or without a `data:` prefix, or None."""
    if not isinstance(value, str) or not value:
        return None
    prefix = _DATA_URI.match(value)
    try:
        return base64.b64decode(value[prefix.end() :] if prefix else value, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def http_date(value: str) -> datetime | None:
    """The time of an HTTP date (`Wed, 21 Oct 2026 07:28:00 GMT`), or None."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_moderation(words: str) -> bool:
    """Whether a provider's words speak of its content policy."""
    return bool(_MODERATION.search(words))


def is_overload(words: str) -> bool:
    """Whether a provider's words say that it has too much to do at the moment."""
    return bool(_OVERLOAD.search(words))


def reason(body: Any) -> str:
    """The provider's own words in an error body: `message`, `detail`, `error` or `msg`, nested or in FastAPI's list."""
    if isinstance(body, str):
        return body
    for name in ("message", "detail", "error", "msg"):
        found = mapping(body).get(name)
        if isinstance(found, list):
            words = "; ".join(filter(None, map(_validation_error, items(found))))
        else:
            words = text(first(found, "message", "msg", "detail", "code") if isinstance(found, dict) else found)
        if words:
            return words
    return ""


def _validation_error(item: Any) -> str:
    """One entry of FastAPI's list: the path of the field, and what is wrong with it."""
    if isinstance(item, str):
        return item
    path = ".".join(filter(None, (text(part) for part in items(mapping(item).get("loc")) if part != "body")))
    return ": ".join(filter(None, (path, text(first(mapping(item), "msg", "message")))))
