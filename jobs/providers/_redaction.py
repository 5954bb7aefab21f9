"""Removes secrets, image data and prompts from what a provider says, before it is kept or shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: how much of a vendor's own words a message keeps
MOST_CHARACTERS = 300

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
