"""What our processes log: one line an event, as text or as JSON, and no secret in any line.

`event` writes what happens to a job as a message with fields. `configure` decides how a process shows its log, and `install` puts
the redaction where log records are made, so that no handler, formatter or level bypasses it: keys, tokens, signed URLs, the bytes
of images and the values that a validation refused are replaced by "…". Known secrets are replaced wherever they appear, even in
the middle of a word; unknown ones are recognized by their form.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TextIO, TypedDict, Unpack
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from . import providers, transitions
from .attempt import find_attempt
from .errors import SettingsError
from .job import Job, Status
from .providers import _redaction
from .report import Charged, Cost
from .settings import Settings, provider_settings

#: the configuration file for `granian --log-config` with which granian's own lines have the form of ours
GRANIAN_CONFIG = Path(__file__).with_name("granian-log.json")
#: the logger of all events; a process that wants none sets its level to WARNING
EVENTS = logging.getLogger("darkroom")
# An application that configures no logging sees none of it.
EVENTS.addHandler(logging.NullHandler())
#: lines below WARNING are written at most so many seconds after they were logged
BATCH_SECONDS = 0.1
#: lines that a `BatchHandler` keeps at most
_MAX_LINES = 1000
#: writes JSON; `json.dumps` would make an encoder for each line
_json = json.JSONEncoder(ensure_ascii=False).encode
#: the attribute of a log record that holds its `_Event`
_ATTRIBUTE = "darkroom_event"
#: a text longer than this is cut off, in characters
MAX_CHARACTERS = 16_384
#: and a field of an event, in characters
MAX_FIELD_CHARACTERS = 512
#: configured values shorter than this are too common to be replaced, in characters
_MIN_SECRET_CHARACTERS = 6
#: the environment variables of the storage's client that hold secrets
_STORAGE_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_PATTERNS = (
    # bytes as Python writes them: bodies and images
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
    # a query whose host is not shown
    (re.compile(r"(/[^\s?'\"<>]{0,300})\?[^\s'\"<>]+"), r"\1?…"),
)
#: a value that needs no quotes in a line of text
_WORD = re.compile(r"[\w.:/+@…-]+")
#: the id of a job
_JOB_ID = re.compile(r"[0-9a-f]{32}")
#: a run of characters that may be a signature or an image, and the ones that are a path of ours
_RUN = re.compile(r"[\w+/=-]{40,}", re.ASCII)
_PATH = re.compile(r"/?(?:[a-z0-9_.=-]{1,39}/)+[a-z0-9_.=-]{0,39}")
#: the line of a traceback that names a file
_FRAME = re.compile(r'\s*File "[^"\n]*", line \d+')


class Redacted(str):
    """A text that holds no secret any more, and need not be searched again."""

    __slots__ = ()


class Redaction:
    """Removes secrets from texts: those that it knows, and everything that has the form of one."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self.add(known)

    def add(self, secrets: Iterable[str]) -> None:
        """Redact these too from now on, also where they are URL-encoded or written with Python's escapes."""
        for secret in secrets:
            if len(secret) >= _MIN_SECRET_CHARACTERS:
                self._known |= {secret, quote(secret, safe=""), repr(secret)[1:-1]}
        longest_first = sorted(self._known, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> Redacted:
        """Return the text without secrets; its line breaks stay."""
        cut = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "…"
        if self._pattern is not None:
            cut = self._pattern.sub("…", cut)
        if _JOB_ID.fullmatch(cut):  # the most frequent text, in which no pattern below finds anything
            return Redacted(cut)
        for pattern, instead in _PATTERNS:
            cut = pattern.sub(instead, cut)

        def shown(run: re.Match[str]) -> str:
            return run[0] if _PATH.fullmatch(run[0]) else "…"

        return Redacted("\n".join(line if _FRAME.match(line) else _RUN.sub(shown, line) for line in cut.split("\n")))


#: the redaction of this process
redaction = Redaction()


class Fields(TypedDict, total=False):
    """The fields of an event, which are also the keys of its JSON object; those that are None are left out."""

    #: the job's id
    job: str | None
    #: the attempt's number on the job's ledger, from 1
    attempt: int | None
    #: for example "deepmode.generate"
    operation: str | None
    provider: str | None
    #: the job's status after the event
    status: str | None
    #: what became of the attempt, the image, the callback or the delivery
    outcome: str | None
    #: the failure's code
    code: str | None
    #: whether the attempt costs money: "no", "yes" or "unknown"
    charged: str | None
    #: what the attempt costs, in `cost_unit`
    cost: float | None
    #: "credit", "usd" or "token"
    cost_unit: str | None
    #: how long it took
    duration_seconds: float | None
    #: the image's index
    image: int | None
    #: a number of images
    images: int | None
    #: why, in a few words of ours; never a provider's text
    reason: str | None
    #: when it is tried again
    until: datetime | None
    #: the status of an HTTP answer
    http_status: int | None


#: their names, in the order in which a line shows them
_NAMES = Fields.__annotations__


def event(message: str, given: Fields | None = None, /, *, level: int = logging.INFO, **more: Unpack[Fields]) -> None:
    """Log one event, such as `event("job answered", job=job.id, attempt=1)`.

    `message` is a constant of two or three words; everything that varies is a field, in `given` or by keyword.
    """
    if not EVENTS.isEnabledFor(level):
        return
    fields: dict[str, Any] = {**given, **more} if given else {**more}
    clean: dict[str, str | float] = {}
    words = [message]
    for name in (*_NAMES, *(name for name in fields if name not in _NAMES)):
        if (value := fields.get(name)) is None:
            continue
        key = name if name in _NAMES else _clean_text(name, redaction)[0]
        clean[key], word = _clean(value)
        words.append(f"{key}={word}")
    # Without the search for the caller's file and line, which no format shows: a callback writes one of these.
    made = EVENTS.makeRecord(EVENTS.name, level, "", 0, Redacted(" ".join(words)), (), None)
    setattr(made, _ATTRIBUTE, _Event(message, clean))
    EVENTS.handle(made)


@dataclass(frozen=True)
class _Event:
    """What a record carries for the JSON formatter, already without secrets."""

    message: str
    fields: Mapping[str, str | float]


def change(before: Job, after: Job) -> None:
    """Log what a change of a job's status means to an operator: the job was claimed, is retried, was stored, or has ended."""
    if after is before:
        return
    fields: Fields = {"job": after.id, "operation": after.operation}
    attempt = after.attempt
    if after.holder is not None and before.holder is None and after.status in (Status.QUEUED, Status.STORING):
        number = after.pending[0].attempt if after.pending else transitions.next_number(after)
        waited = (after.updated_at - before.wake_at).total_seconds() if before.wake_at else None
        event("job claimed", fields, attempt=number, status=after.status, duration_seconds=waited)
    elif after.status is Status.QUEUED and before.status is not Status.QUEUED and attempt is not None:
        fields = {**fields, "attempt": attempt.number, "outcome": attempt.outcome, "charged": attempt.charged}
        event("job retried", fields, code=attempt.code, until=after.wake_at)
    if len(after.artifacts) > len(before.artifacts):
        _log_stored(after, fields)
    if after.status.is_final and after.status is not before.status:
        _log_end(after, fields)


def _log_stored(job: Job, fields: Fields) -> None:
    attempt = find_attempt(job.attempts, job.artifacts[-1].attempt)
    if attempt is not None:
        since = attempt.ended_at
        fields = {**fields, "attempt": attempt.number, **cost_fields(attempt.cost or attempt.expected_cost)}
        fields["duration_seconds"] = (job.updated_at - since).total_seconds() if since else None
    outcome = "partial" if job.pending or job.missing else "stored"
    event("job stored", fields, status=job.status, outcome=outcome, images=len(job.artifacts))


def _log_end(job: Job, fields: Fields) -> None:
    paid = [attempt for attempt in job.attempts if attempt.charged is not Charged.NO]
    costs = [cost for attempt in paid if (cost := attempt.cost or attempt.expected_cost)]
    total = Cost(sum(cost.amount for cost in costs), costs[0].unit) if costs else None
    unsure = any(attempt.charged is Charged.UNKNOWN for attempt in paid)
    event(
        "job ended",
        {**fields, **cost_fields(total)},
        level=logging.WARNING if job.status is Status.FAILED else logging.INFO,
        status=job.status,
        attempt=job.attempt.number if job.attempt else None,
        outcome=job.attempt.outcome if job.attempt else None,
        provider=job.provider,
        code=job.error.code if job.error else None,
        charged=Charged.UNKNOWN if unsure else Charged.YES if paid else Charged.NO,
        images=len(job.artifacts),
        duration_seconds=(job.updated_at - job.created_at).total_seconds(),
    )


def cost_fields(cost: Cost | None) -> Fields:
    """The fields of an event that hold a cost."""
    return {} if cost is None else {"cost": cost.amount, "cost_unit": cost.unit}


def _clean(value: object) -> tuple[str | float, str | float]:
    """The value as JSON has it, without secrets, and as a line of text shows it."""
    if isinstance(value, int | float):
        number = value if isinstance(value, int) else round(value, 3)
        return number, number
    if isinstance(value, datetime):
        text = _timestamp(value.timestamp())
        return text, text
    text = str(value)[:MAX_FIELD_CHARACTERS]
    if _JOB_ID.fullmatch(text):
        # Ids are as many as jobs, and would push the words that come back again and again out of the cache.
        text = str(redaction(text))
        return text, text
    return _clean_text(text, redaction)


@lru_cache(maxsize=4096)
def _clean_text(text: str, redaction: Redaction) -> tuple[str, str]:
    clean = str(redaction(text))
    return clean, clean if _WORD.fullmatch(clean) else _json(clean)


def _timestamp(at: float) -> str:
    """A time in seconds since 1970, as JSON has it."""
    seconds, milliseconds = divmod(round(at * 1_000_000) // 1000, 1000)
    return f"{_utc(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=16)
def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


@lru_cache(maxsize=16)
def _local(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class TextFormatter(logging.Formatter):
    """Formats each record as a line of text, and what it says of an exception below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - as in logging
        """Return the local time, as `logging` shows it."""
        return f"{_local(int(record.created))},{int(record.msecs):03d}"


class JSONFormatter(logging.Formatter):
    """Formats each record as one JSON object in a line.

    Its keys are `time`, `level`, `logger` and `message`, the fields of an event, and `exception` and `stack` where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event = getattr(record, _ATTRIBUTE, None) or _Event(record.getMessage(), {})
        line: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": event.message,
            **event.fields,
        }
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        return _json(line)


def formatter(log_format: Literal["text", "json"] | None = None) -> logging.Formatter:
    """Return the formatter of our lines, and redact what this process logs; by default in the form that the environment asks for.

    Granian's processes make their formatter by it: see `GRANIAN_CONFIG`.
    """
    install()
    if log_format is None:
        try:
            log_format = Settings.read().log_format
        except SettingsError:  # the application, which needs the settings, says so
            log_format = "text"
    return JSONFormatter() if log_format == "json" else TextFormatter()


class BatchHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr or to `stream`, and lines below WARNING together, at most `seconds` after they were logged.

    One write for each of its callbacks would cost a busy receiver a fifth of them, and in a busy worker each write lets
    another thread in. What a process has logged is written when it exits, unless it is killed.
    """

    def __init__(self, seconds: float, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._seconds = seconds
        self._lines: list[str] = []
        self._timer: threading.Timer | None = None
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's line for the next write, or write it at once."""
        if self._pid != os.getpid():  # a fork has the lines of its parent, but not its timer
            self._lines, self._timer, self._pid = [], None, os.getpid()
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING or len(self._lines) >= _MAX_LINES:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(self._seconds, self.flush)
                self._timer.name, self._timer.daemon = "darkroom-log", True
                self._timer.start()
        except Exception:  # noqa: BLE001 - as in logging: a line that cannot be written must not break its caller
            self.handleError(record)

    def flush(self) -> None:
        """Write the lines that have been kept."""
        with self.lock or nullcontext():
            lines, self._lines, self._timer = self._lines, [], None
            if lines:
                self.stream.write("\n".join(lines) + "\n")
            super().flush()


def configure(
    log_format: Literal["text", "json"],
    *,
    level: int = logging.WARNING,
    file: str | None = None,
    batch_seconds: float = BATCH_SECONDS,
) -> None:
    """Show this process's log on stderr, or append it to `file`: events from INFO on, everything else from `level` on.

    Lines below WARNING are written together, at most `batch_seconds` after they were logged. Handlers that the application has
    put on the root logger are left alone, and no other is added.
    """
    install()
    root = logging.getLogger()
    if not root.handlers:
        stream = Path(file).open("a", errors="backslashreplace") if file else None  # noqa: SIM115 - it stays open until the process ends
        shown = BatchHandler(batch_seconds, stream)
        shown.setFormatter(formatter(log_format))
        root.addHandler(shown)
        root.setLevel(level)
        logging.captureWarnings(True)
    EVENTS.setLevel(min(level, logging.INFO))


def install(known: Iterable[str] = ()) -> None:
    """Redact everything that this process logs from now on; called again, it only adds more secrets."""
    redaction.add(known)
    _clean_text.cache_clear()
    make: Any = logging.getLogRecordFactory()

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made: logging.LogRecord = make(*args, **kwargs)
        if not (isinstance(made.msg, Redacted) and not made.args):
            try:
                said = made.getMessage()
            except Exception:  # noqa: BLE001 - a library's wrong log arguments must not break its caller
                said = str(made.msg)
            made.msg, made.args = redaction(said), ()
        if made.exc_info and made.exc_info[0] is not None:
            # As text from here on: a handler that formats the exception itself would write what it says.
            made.exc_text, made.exc_info = redaction("".join(traceback.format_exception(*made.exc_info)).rstrip()), None
        if made.stack_info:
            made.stack_info = redaction(made.stack_info)
        return made

    if not getattr(make, "redacts", False):
        make_redacted.redacts = True  # type: ignore[attr-defined]  # a mark on a function
        logging.setLogRecordFactory(make_redacted)
    # A test runner's own hooks are left alone.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = lambda kind, error, trace: _print_crash(
            "the process crashed", error.with_traceback(trace), kind
        )
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda crash: _print_crash("a thread crashed", crash.exc_value, crash.exc_type)


def secrets_of(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield every secret that a process is configured with: keys, passwords in URLs, and the storage's secrets."""
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


def _print_crash(what: str, error: BaseException | None, kind: type[BaseException]) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    words = redaction("".join(traceback.format_exception(kind, error, error.__traceback__))).rstrip()
    shown = f"{what}:\n{words}"
    if any(isinstance(handler.formatter, JSONFormatter) for handler in logging.getLogger().handlers):
        line = {"time": _timestamp(time.time()), "level": "critical", "logger": EVENTS.name, "message": what}
        shown = _json({**line, "exception": words})
    print(shown, file=sys.stderr)  # noqa: T201 - logging may be what has crashed
