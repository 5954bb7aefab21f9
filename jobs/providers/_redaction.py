"""Removes secrets, image data and prompts from a provider's words before they are stored or shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..report import Failed, Report
from ..values import replace

#: the most that a message keeps of a provider's words, in characters
MAX_CHARACTERS = 300

#: what must not appear in a message or a log, and its replacement; the secret of a callback URL is in its path
SECRETS = (
    (re.compile(r"(https?://)(?:[^\s/\"'<>@]*@)?([^\s/?#\"'<>\\]+)[^\s\"'<>]*", re.IGNORECASE), r"\1\2/…"),
    (re.compile(r"(bearer\s+)\S+", re.IGNORECASE), r"\1…"),
    (re.compile(r"(api[ _-]?key[^:=\n]{0,20}[:=]\s*)[^\s,;]+", re.IGNORECASE), r"\1…"),
    (re.compile(r"\b(?:(?:sk|pk|rk|key|whsec)[-_][\w*.+/=-]{6,}|drk_[\w-]{20,})", re.IGNORECASE), "…"),
)
#: a signature, or the bytes of an image
_LONG_RUN = re.compile(r"[\w+/=-]{40,}")
#: so many characters of a prompt in a row count as a quotation; fewer in scripts where one character is a word
_QUOTED_LETTERS, _QUOTED_IDEOGRAMS = 16, 6


def redacted(words: str, limit: int = MAX_CHARACTERS) -> str:
    """A provider's words as one line of at most `limit` characters: URLs cut to their host, no keys, no base64."""
    line = " ".join("".join(char if char.isprintable() else " " for char in words[: max(4000, limit)]).split())
    for pattern, replacement in SECRETS:
        line = pattern.sub(replacement, line)
    line = _LONG_RUN.sub("…", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def unquoted(words: str, params: Mapping[str, Any]) -> str:
    """A provider's words without what they quote of the request's prompts, which are stored in its parameters only."""
    for prompt in sorted(_prompts(params, is_prompt=False), key=len, reverse=True):
        words = _without(words, " ".join(prompt.split()))
    return words


def without_prompts(report: Report, params: Mapping[str, Any]) -> Report:
    """A provider's report, as it may be kept: without what its message quotes of the request's prompts."""
    return replace(report, message=unquoted(report.message, params)) if isinstance(report, Failed) else report


def _prompts(value: Any, *, is_prompt: bool) -> Iterator[str]:
    """What a person wrote: texts of several words, and every field whose name says `prompt`."""
    if isinstance(value, str) and (is_prompt or " " in value.strip()):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _prompts(inner, is_prompt="prompt" in name)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _prompts(inner, is_prompt=is_prompt)


def _without(words: str, prompt: str) -> str:
    """The words with each run of the prompt that is long enough replaced by an ellipsis."""
    least = _QUOTED_LETTERS if prompt.isascii() else _QUOTED_IDEOGRAMS
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
