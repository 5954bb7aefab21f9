"""Reading what a vendor sent without trusting it: no type, length or nesting is taken for granted.

Only `parsed` raises (ValueError); everything else answers with an empty value where the vendor sent something else.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

#: how many images of one answer are looked at; no vendor renders more than 8
MOST_IMAGES = 64

#: how much of a vendor's own words a message keeps
MOST_CHARACTERS = 300

_URL = re.compile(r"https?://[\x21-\x7e]{1,8000}", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(?!\.+$)[\x21-\x7e]{1,200}")
_DATA_URI = re.compile(r"data:[\w/+.-]{0,80};base64,", re.IGNORECASE)
_MODERATION = re.compile(
    r"moderat|content[ _-]?(policy|security|violation|filter)|risk[ _-]?control|safety|nsfw|unsafe|inappropriate"
    r"|prohibited[ _-]?content|sensitive[ _-](?:word|content|information)",
    re.IGNORECASE,
)
#: what must not stand in a message or a log, and what stands there instead; a callback's secret is in the path of its URL
SECRETS = (
    (re.compile(r"(https?://)(?:[^\s/\"'<>@]*@)?([^\s/?#\"'<>\\]+)[^\s\"'<>]*", re.IGNORECASE), r"\1\2/…"),
    (re.compile(r"(bearer\s+)\S+", re.IGNORECASE), r"\1…"),
    (re.compile(r"(api[ _-]?key[^:=\n]{0,20}[:=]\s*)[^\s,;]+", re.IGNORECASE), r"\1…"),
    (re.compile(r"\b(?:(?:sk|pk|rk|key|whsec)[-_][\w*.+/=-]{6,}|drk_[\w-]{20,})", re.IGNORECASE), "…"),
)
#: a signature, or the bytes of a picture
_RUN = re.compile(r"[\w+/=-]{40,}")
#: so much of a prompt, found in a vendor's words, is taken for a quotation; scripts with a sign a word say more with less
_QUOTED_CHARACTERS, _QUOTED_SIGNS = 16, 6


def parsed(body: bytes | str) -> Any:
    """The JSON value of these bytes. Raises ValueError when they are none, and for what is nested too deeply."""
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def mapping(value: Any) -> Mapping[str, Any]:
    """The JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The JSON array, cut to `MOST_IMAGES`, or an empty one."""
    return value[:MOST_IMAGES] if isinstance(value, list) else []


def text(value: Any) -> str:
    """The string, or an empty one; an integer in its digits, for vendors write ids and codes both ways."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**18 else ""
    return value if isinstance(value, str) else ""


def first(body: Mapping[str, Any], *names: str) -> Any:
    """The value under the first of these names that holds anything, or None."""
    return next((body[name] for name in names if body.get(name)), None)


def number(value: Any) -> float | None:
    """The number, at least 0 and below 10^15, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 10**15 else None


def identifier(value: Any) -> str | None:
    """The vendor's id, when it is printable ASCII of at most 200 characters; still to be quoted in a path."""
    found = text(value)
    return found if _IDENTIFIER.fullmatch(found) else None


def url(value: Any) -> str | None:
    """The URL byte-exact as the vendor wrote it, or None when it is no http(s) URL in printable ASCII."""
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


def is_moderation(words: str) -> bool:
    """Whether a vendor's words speak of its content policy."""
    return bool(_MODERATION.search(words))


def reason(body: Any) -> str:
    """The vendor's own words in an error body: `message`, `detail`, `error` or `msg`, nested or in FastAPI's list."""
    if isinstance(body, str):
        return body
    for name in ("message", "detail", "error", "msg"):
        found = mapping(body).get(name)
        if words := _words(found):
            return words
    return ""


def _words(found: Any) -> str:
    if isinstance(found, dict):
        return text(first(found, "message", "msg", "detail", "code"))
    if isinstance(found, list):
        return "; ".join(filter(None, (_complaint(item) for item in items(found))))
    return text(found)


def _complaint(item: Any) -> str:
    """One entry of a validation error: the path of the field, and what is wrong with it."""
    if isinstance(item, str):
        return item
    path = ".".join(filter(None, (text(part) for part in items(mapping(item).get("loc")) if part != "body")))
    return ": ".join(filter(None, (path, text(first(mapping(item), "msg", "message")))))


def redacted(words: str, limit: int = MOST_CHARACTERS) -> str:
    """A vendor's words as one line for a person: URLs down to their host, no keys, no base64, at most `limit` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in words[: max(4000, limit)]).split())
    for pattern, instead in SECRETS:
        line = pattern.sub(instead, line)
    line = _RUN.sub("…", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def unquoted(words: str, params: Mapping[str, Any]) -> str:
    """A vendor's words without what they quote of a request's prompts: those stand in its parameters and nowhere else."""
    for prompt in sorted(_prompts(params, asked=False), key=len, reverse=True):
        words = _without(words, " ".join(prompt.split()))
    return words


def _prompts(value: Any, *, asked: bool) -> Iterator[str]:
    """What a person wrote: the texts of several words, and all that is called a prompt."""
    if isinstance(value, str) and (asked or " " in value.strip()):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _prompts(inner, asked="prompt" in name)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _prompts(inner, asked=asked)


def _without(words: str, prompt: str) -> str:
    least = _QUOTED_CHARACTERS if prompt.isascii() else _QUOTED_SIGNS
    if len(prompt) <= least:
        return words.replace(prompt, "…") if len(prompt) >= 4 else words
    kept: list[str] = []
    at = 0
    while at < len(words):
        end = at + least
        if words[at:end] not in prompt or end > len(words):
            kept.append(words[at])
            at += 1
            continue
        while end < len(words) and words[at : end + 1] in prompt:
            end += 1
        kept.append("…")
        at = end
    return "".join(kept)
