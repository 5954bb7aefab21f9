"""The log of a process: events as text and as JSON, and no secret in either."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from jobs import callback_url, logs
from jobs.logs import MAX_CHARACTERS, Redaction
from jobs.settings import Settings

JOB = "0123456789abcdef0123456789abcdef"
KNOWN = "canary/key+with=signs"
TOKEN = callback_url.sign("deepmode", JOB, 1, ["the-signing-key"])
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
redaction = Redaction([KNOWN])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"key {KNOWN} refused", "key … refused"),
        (f"X{KNOWN}X", "X…X"),
        ("?key=canary%2Fkey%2Bwith%3Dsigns", "?key=…"),
        ("GET https://cdn.example/a.png?X-Amz-Signature=canary HTTP", "GET https://cdn.example/… HTTP"),
        ("GET /pictures/a.png?sig=canary&se=1", "GET /pictures/a.png?…"),
        (f"POST /webhooks/deepmode/{TOKEN}", f"POST /webhooks/deepmode/{JOB}.1.…"),
        ("Authorization: Bearer canary-canary", "Authorization: … …"),
        (f"with drk_0123456789ab_{'canary7' * 7}", "with drk_0123456789ab_…"),
        ("{'X-API-Key': 'canary'}", "{'X-API-Key': …"),
        ("'Authorization': b'AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=canarycanary'", None),
        ("redis://:canary@127.0.0.1:6379/0", "redis://…@127.0.0.1:6379/0"),
        ("amqp://guest:canary@rabbit//", "amqp://…@rabbit//"),
        ("secret whsec_canary+canary/canary= is old", "secret … is old"),
        (f"b64 {base64.b64encode(PICTURE).decode()}", "b64 …"),
        (f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}", "data:image/png;base64,…"),
        (f"body {PICTURE!r}", "body b'…'"),
        ("Command # 1 (SET x {canary}) of pipeline caused error: OOM", "Command # 1 (…) of pipeline caused error: OOM"),
        ("prompt\n  Too short [type=x, input_value='canary', input_type=str]", None),
        (f"job {JOB} attempt 1", f"job {JOB} attempt 1"),
        (f"msg_{JOB}_1 delivered", f"msg_{JOB}_1 delivered"),
        (f"put artifacts/{JOB}/1-0.jpg: away", f"put artifacts/{JOB}/1-0.jpg: away"),
        ("Task darkroom.run[0b7a3d7c-2b57-4a4e-9f0f-8f2a1f3b6c1d] received", None),
    ],
)
def test_secrets_go_and_names_stay(said: str, shown: str | None) -> None:
    clean = redaction(said)
    assert "canary" not in clean
    assert clean == shown or shown is None


def test_a_traceback_keeps_its_lines() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/A/very/long/Path/to/a/Python/of/somebody/site-packages/redis/client", line 12, in get',
        "    return self.execute(key)",
        "ValueError: no",
    ]
    assert redaction("\n".join(lines)) == "\n".join(lines)


def test_hostile_texts_cost_little() -> None:
    began = time.process_time()
    for text in (
        "b'" * 50_000,
        "\\x00" * 50_000,
        "/a?" * 50_000,
        "input_value=" * 20_000,
        "Command # 1 (" * 20_000,
        "://" * 50_000,
    ):
        assert len(redaction(text)) <= MAX_CHARACTERS + 100
    assert time.process_time() - began < 3


@given(st.binary(min_size=48, max_size=400), st.text(alphabet=" \n.,:'\"", max_size=5))
def test_no_bytes_show_in_base64_or_as_python_writes_them(content: bytes, around: str) -> None:
    for written in (base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()):
        clean = redaction(f"{around}{written}{around}")
        assert not any(written[at : at + 40] in clean for at in range(len(written) - 40))


@given(st.text(min_size=6, max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_known_secret_shows_nowhere(secret: str, before: str, after: str) -> None:
    shown = Redaction([secret])(f"{before}{secret}{after}")
    assert secret not in shown or secret in f"{before}…{after}"


# What a process prints

PROGRAM = """
import logging, sys, threading
from jobs import logs
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s", stream=sys.stdout)
logs.install(["canary-one"])
logs.install(["canary-two"])
log = logging.getLogger("any.library")
log.info("with %s and %s", "canary-one", {"x": "canary-two"})
log.info("no %d", "number")
try:
    try:
        raise KeyError("canary-one")
    except KeyError as cause:
        raise ValueError("canary-two") from cause
except ValueError:
    log.exception("both")
log.warning("stack", stack_info=True)
def broken(): raise RuntimeError("canary-one in a thread")
thread = threading.Thread(target=broken); thread.start(); thread.join()
raise RuntimeError("canary-two at the end")
"""


def test_no_secret_leaves_a_process_by_its_log_its_threads_or_its_end() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert "canary" not in said
    assert "INFO with … and {'x': '…'}" in said
    assert "INFO no %d" in said
    for name in ("KeyError", "ValueError", "RuntimeError", "Traceback", "a thread crashed", "the process crashed"):
        assert name in said


CRASHES = """
import threading, warnings
from jobs import logs
logs.configure("json")
warnings.warn("canary-secret=canarycanary")
def broken(): raise RuntimeError("token=canarycanary")
thread = threading.Thread(target=broken); thread.start(); thread.join()
raise ValueError("token=canarycanary")
"""


def test_crashes_and_warnings_are_json_too() -> None:
    ended = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True, timeout=30, check=False)
    warning, thread, process = (json.loads(line) for line in ended.stderr.splitlines())
    assert (ended.returncode, ended.stdout, "canary" in thread["exception"] + process["exception"]) == (1, "", False)
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")
    assert (thread["message"], process["message"]) == ("a thread crashed", "the process crashed")
    assert process["exception"].endswith("ValueError: token=…")


def test_every_secret_of_the_settings_is_known(tmp_path: Path) -> None:
    settings = Settings(
        redis_url="redis://:canary%2Fredis@127.0.0.1/0",
        broker_url="amqp://guest:canary-broker@rabbit//",
        storage_url=f"file://{tmp_path}",
        secret_keys="canary-sign,canary-before",
        api_keys="canary-api",
        webhook_url="https://app.example.com/hook?token=canary-notify",
        webhook_secrets="whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
    )
    environ = {
        "DEEPMODE_API_KEY": "canary-vendor",
        "CHAINHUB_WEBHOOK_SECRET": "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
        "AWS_SECRET_ACCESS_KEY": "canary-aws",
    }
    known = set(logs.secrets_of(settings, environ)) - {""}
    assert known == {
        "canary/redis", "canary-broker", "canary-sign", "canary-before", "canary-api", "token=canary-notify",
        "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5", "canary-vendor", "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5", "canary-aws",
    }  # fmt: skip


def test_a_value_that_a_validation_refused_does_not_show() -> None:
    class Model(BaseModel):
        prompt: int

    with pytest.raises(ValidationError) as refused:
        Model(prompt="a red canary sings")  # type: ignore[arg-type]
    assert "canary" in str(refused.value)
    assert "canary" not in redaction(str(refused.value))


@pytest.fixture
def redacting() -> Iterator[None]:
    """Redaction in this process, until the end of the test."""
    before = logging.getLogRecordFactory()
    logs.install()
    yield
    logging.setLogRecordFactory(before)


def test_a_handler_gets_nothing_that_it_could_format_otherwise(
    redacting: None, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise ValueError(TOKEN)  # noqa: TRY301 - it is what is logged
    except ValueError:
        logging.getLogger("any").exception("job %s", JOB, extra={"job": JOB})
    (record,) = caplog.records
    assert (record.msg, record.args, record.exc_info) == (f"job {JOB}", (), None)
    assert str(record.exc_text).endswith(f"ValueError: {JOB}.1.…")


# Events

EVENTS = """
import logging, sys
from jobs import logs
logs.install(["canary-one"])
logs.configure(sys.argv[1])
logs.event("job answered", job="0123456789abcdef0123456789abcdef", attempt=1, operation="deepmode.generate",
           duration_seconds=1.23456, outcome="succeeded", cost=0.105, cost_unit="usd", code=None)
logs.event("image postponed", level=logging.WARNING, image=0, reason="the image's host answered 503")
logging.getLogger("any.library").info("noise")
logging.getLogger("any.library").warning("it says %s", "canary-one")
try:
    raise ValueError("canary-one")
except ValueError:
    logging.getLogger("worker").exception("job %s", "x")
"""


def printed(log_format: str) -> list[str]:
    """What a process prints that configures its log, writes events, and has a library that logs."""
    command = [sys.executable, "-c", EVENTS, log_format]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "canary" not in ended.stderr
    return ended.stderr.splitlines()


def test_an_event_is_one_line_of_text_with_its_fields() -> None:
    answered, postponed, library, *_ = printed("text")
    assert answered.endswith(
        f"INFO darkroom job answered job={JOB} attempt=1 operation=deepmode.generate outcome=succeeded"
        " cost=0.105 cost_unit=usd duration_seconds=1.235"
    )
    assert postponed.endswith('WARNING darkroom image postponed image=0 reason="the image\'s host answered 503"')
    assert library.endswith("WARNING any.library it says …")


def test_an_event_is_one_json_object_with_stable_keys() -> None:
    answered, postponed, library, crash = map(json.loads, printed("json"))
    time_of_it = datetime.fromisoformat(answered.pop("time"))
    assert time_of_it.tzinfo is UTC
    assert answered == {
        "level": "info", "logger": "darkroom", "message": "job answered", "job": JOB, "attempt": 1,
        "operation": "deepmode.generate", "duration_seconds": 1.235, "outcome": "succeeded", "cost": 0.105,
        "cost_unit": "usd",
    }  # fmt: skip
    assert (postponed["level"], postponed["image"]) == ("warning", 0)
    assert library["message"] == "it says …"
    assert crash["exception"].endswith("ValueError: …")


@pytest.fixture
def at_info() -> Iterator[None]:
    """Events are logged, until the end of the test."""
    before = logs.EVENTS.level
    logs.EVENTS.setLevel(logging.INFO)
    yield
    logs.EVENTS.setLevel(before)


SECRETS = [
    KNOWN,
    f"key {KNOWN} refused",
    TOKEN,
    "https://cdn.example/a.png?X-Amz-Signature=canarycanary",
    "redis://:canary@127.0.0.1:6379/0",
    base64.b64encode(PICTURE).decode(),
    repr(PICTURE),
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("place", ["field", "key", "argument", "extra", "exception", "stack"])
def test_no_secret_enters_a_line_by_any_way(
    monkeypatch: pytest.MonkeyPatch, redacting: None, at_info: None, log_format: str, place: str, secret: str
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JSONFormatter() if log_format == "json" else logging.Formatter())
    monkeypatch.setattr(logs.EVENTS, "handlers", [handler])
    logs.install([KNOWN])
    match place:
        case "field":
            logs.event("job answered", job=JOB, reason=secret)
        case "key":
            logs.event("job answered", job=JOB, **{secret: 1})  # type: ignore[misc]
        case "argument":
            logs.EVENTS.info("job %s", secret)
        case "extra":
            logs.EVENTS.info("job", extra={"fields": {secret: secret}})
        case "exception":
            logs.EVENTS.error("job", exc_info=ValueError(secret))
        case "stack":
            logs.EVENTS.error("job", extra={"event": secret})
    shown = stream.getvalue()
    assert shown.startswith("{" if log_format == "json" else "job")
    for part in ("canary", TOKEN.rpartition(".")[2], base64.b64encode(PICTURE).decode()[:40], repr(PICTURE)[2:40]):
        assert part not in shown


def test_the_applications_own_handlers_are_left_alone() -> None:
    program = """
import logging, sys
logging.basicConfig(level=logging.ERROR, format="mine %(message)s", stream=sys.stdout)
from jobs import logs
logs.configure("json", level=logging.DEBUG)
logs.event("job claimed", job="x")
logging.getLogger("any.library").warning("noise")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert (ended.stdout, ended.stderr) == ("mine job claimed job=x\n", "")


BATCHES = """
import logging, os, sys
from jobs import logs
logs.configure("text", batch_seconds=60)
logs.event("first event", job="a" * 32)
if not (child := os.fork()):
    logs.event("event of a child")
    sys.exit()
os.waitpid(child, 0)
logs.event("bad event", level=logging.WARNING)
print("written", file=sys.stderr, flush=True)
logs.event("last event")
"""


def test_lines_of_a_batch_are_written_once_with_the_next_warning_and_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BATCHES], capture_output=True, text=True, timeout=60, check=True
    )
    said = [line.split(" darkroom ")[-1].split(" job=")[0] for line in done.stderr.splitlines()]
    assert said == ["event of a child", "first event", "bad event", "written", "last event"]


def test_a_batch_is_written_after_a_while() -> None:
    written = threading.Event()

    class Stream(io.StringIO):
        def flush(self) -> None:
            if self.getvalue() == "one\ntwo\n":
                written.set()

    handler = logs.BatchHandler(0.01)
    handler.stream = Stream()
    for text in ("one", "two"):
        handler.handle(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))
    assert written.wait(30)
