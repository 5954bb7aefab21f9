"""The logging border: whatever any library logs in our processes is freed of secrets before a handler sees it.

It sits where records are made, so no handler, formatter or level goes around it: keys, tokens, signed URLs, the bytes of
pictures and the values that a validation refused. The known secrets are replaced wherever they stand, even in the middle of
a word; for those that nobody knows beforehand there are patterns.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from . import providers
from .errors import SettingsError
from .providers import _redaction
from .settings import Settings, provider_settings

#: characters of a record that are looked at; the rest is cut off
MOST_CHARACTERS = 16_384
#: what is shorter is no secret, but a word that would be missed
_SHORTEST = 6
#: variables of the storage's client that hold secrets
_STORAGE_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_PATTERNS = (
    # bytes as Python writes them: bodies and pictures
    (re.compile(r"""\bb(?:'(?:[^'\\]|\\.){24,}(?:'|$)|"(?:[^"\\]|\\.){24,}(?:"|$))""", re.DOTALL), "b'…'"),
    (re.compile(r"(?:\\x[0-9a-f]{2}[^\\\s]{0,8}){8,}", re.IGNORECASE), "…"),
    # a callback's token keeps the job and the attempt that it names
    (re.compile(r"\b([0-9a-f]{32}\.[1-9][0-9]{0,3})\.[\w-]{20,}"), r"\1.…"),
    # an API key keeps its id
    (re.compile(r"\b(drk_[0-9a-f]{12})_[\w-]{20,}"), r"\1_…"),
    # Redis' client quotes the command, pydantic the value
    (re.compile(r"(Command # \d+ \().*?(\) of pipeline)", re.DOTALL), r"\1…\2"),
    (re.compile(r"(input_value=).*?(, input_type=)", re.DOTALL), r"\1…\2"),
    (re.compile(r"([a-z][a-z0-9+.-]{1,20}://)[^\s/@'\"<>]+@", re.IGNORECASE), r"\1…@"),
    *_redaction.SECRETS,
    (
        re.compile(
            r"((?:authorization|signature|secret|password|token)['\"]?(?: ?[:=]|,) ?b?['\"]?)(?!\s)[^'\"\s,;&]{6,}",
            re.I,
        ),
        r"\1…",
    ),
    # a query without its host
    (re.compile(r"(/[^\s?'\"<>]{0,300})\?[^\s'\"<>]+"), r"\1?…"),
)
#: what may be a signature or a picture, and what is a path of ours
_RUN = re.compile(r"[\w+/=-]{40,}", re.ASCII)
_PATH = re.compile(r"/?(?:[a-z0-9_.=-]{1,39}/)+[a-z0-9_.=-]{0,39}")
#: a line of a traceback that names a file
_FRAME = re.compile(r'\s*File "[^"\n]*", line \d+')


class Redaction:
    """Frees texts of secrets: of those that it knows, and of whatever looks like one."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self.learn(known)

    def learn(self, known: Iterable[str]) -> None:
        """Knows these too from now on."""
        self._known |= {form for secret in known if len(secret) >= _SHORTEST for form in _forms(secret)}
        longest_first = sorted(self._known, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """The text without secrets, its lines as they were."""
        cut = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"
        if self._pattern is not None:
            cut = self._pattern.sub("…", cut)
        for pattern, instead in _PATTERNS:
            cut = pattern.sub(instead, cut)
        return "\n".join(line if _FRAME.match(line) else _RUN.sub(_shown, line) for line in cut.split("\n"))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield repr(secret)[1:-1]


def _shown(run: re.Match[str]) -> str:
    return run[0] if _PATH.fullmatch(run[0]) else "…"


#: the one of this process
redaction = Redaction()


def install(known: Iterable[str] = ()) -> None:
    """Puts the redaction at the border of this process; again, it only learns more secrets."""
    redaction.learn(known)
    make = logging.getLogRecordFactory()
    if not getattr(make, "redacts", False):
        logging.setLogRecordFactory(_redacting(make))
    # A test runner's own hooks are left alone.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = lambda kind, error, where: _told("it ended", error.with_traceback(where), kind)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda ended: _told("a thread ended", ended.exc_value, ended.exc_type)


def secrets_of(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Every secret that a process is configured with: keys, the passwords in URLs, and the storage's."""
    yield from _secrets_in(settings)
    for url in (settings.redis_url, settings.broker_url, settings.webhook_url):
        parts = urlsplit(url)
        yield unquote(parts.password or "")
        yield parts.query
    for name in providers.names():
        try:
            found = provider_settings(name, environ)
        except SettingsError:
            continue
        yield from _secrets_in(found)
        yield from _secrets_in(found.options)
    yield from (environ.get(name, "") for name in _STORAGE_SECRETS)


def _secrets_in(model: BaseModel) -> Iterator[str]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        for secret in value if isinstance(value, tuple) else (value,):
            if isinstance(secret, SecretStr):
                yield secret.get_secret_value()


def _redacting(make: Any) -> Any:
    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made: logging.LogRecord = make(*args, **kwargs)
        made.msg, made.args = redaction(_message(made)), ()
        if made.exc_info and made.exc_info[0] is not None:
            # As text from here on: a handler that formats the exception itself would write what it says.
            made.exc_text, made.exc_info = redaction("".join(traceback.format_exception(*made.exc_info)).rstrip()), None
        if made.stack_info:
            made.stack_info = redaction(made.stack_info)
        return made

    record.redacts = True  # type: ignore[attr-defined]
    return record


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a library's slip in a log line must not break who logs
        return str(record.msg)


def _told(what: str, error: BaseException | None, kind: type[BaseException]) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    words = "".join(traceback.format_exception(kind, error, error.__traceback__))
    print(f"{what}:\n{redaction(words).rstrip()}", file=sys.stderr)  # noqa: T201 - this is the place of last resort
