"""A receiver over a real Redis and a folder, and jobs in the status that a test needs."""

from __future__ import annotations

import http.client
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks import Webhook

import webhooks
from jobs import Job, callback_url, transitions
from jobs.darkroom import Darkroom
from jobs.embedded import Command, Process, Processes
from jobs.providers import chainhub, deepmode
from jobs.report import Report
from jobs.request import Request
from jobs.settings import Settings
from jobs.state.api_keys import KeyStore, Scope
from webhooks.auth import NEW_KEY_SECONDS

SECRET = "the-signing-secret"
WEBHOOK_SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
KEY = "the-api-key-of-a-test"

REQUESTS: Mapping[str, Request] = {
    "deepmode": deepmode.Generate(model_id="m", prompt="a lake at dawn"),
    "chainhub": chainhub.IdeogramRemix(prompt="a lake at dawn", image_file="https://example.com/lake.png"),
}


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Settings under which files are served by the receiver."""
    return Settings(
        redis_url=redis_url,
        storage_url=f"file://{tmp_path}/pictures",
        spool_dir=tmp_path / "spool",
        public_url="http://receiver.test",
        secret_keys=f"{SECRET},the-one-before",
        api_keys=f"another-api-key,{KEY}",
    )


@pytest.fixture
def darkroom(settings: Settings) -> Iterator[Darkroom]:
    """The facade that a producer and a worker use."""
    with closing(Darkroom.open(settings)) as opened:
        yield opened


@pytest.fixture
def new_app(settings: Settings) -> Iterator[Callable[..., Flask]]:
    """Makes a receiver with further options; it is closed at the end of the test."""
    with ExitStack() as open_receivers:

        def new(**options: Any) -> Flask:
            receiver = webhooks.create_app(**{"settings": settings, "environ": {}, "threads": 8, **options})
            return open_receivers.enter_context(receiver)

        yield new


@pytest.fixture
def app(new_app: Callable[..., Flask]) -> Flask:
    """The receiver."""
    return new_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a key."""
    return app.test_client()


@dataclass(frozen=True)
class ApiClient:
    """A client with an API key."""

    client: FlaskClient
    key: str = KEY

    def open(self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        """One request, its answer."""
        known = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        return self.client.open(path, method=method, headers=known, buffered=True, **options)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """A GET."""
        return self.open("GET", path, headers)

    def post(self, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        """A POST."""
        return self.open("POST", path, headers, **options)


@pytest.fixture
def api(client: FlaskClient) -> ApiClient:
    """A client with an API key."""
    return ApiClient(client)


@dataclass(frozen=True)
class Jobs:
    """Brings jobs into being and moves them on, as producers, workers and providers would."""

    darkroom: Darkroom

    def queued(self, provider: str = "deepmode", **options: Any) -> Job:
        """A job that nobody holds."""
        return self.darkroom.enqueue(REQUESTS[provider], **options)

    def submitting(self, provider: str = "deepmode", **options: Any) -> Job:
        """A job whose first attempt is on its way."""
        job = self.queued(provider, **options)
        self.darkroom.advance(job.id, lambda job, now: transitions.claimed(job, "worker-1", now))
        return self.darkroom.advance(job.id, lambda job, now: transitions.submitting(job, "worker-1", now)).after

    def reported(self, job: Job, report: Report) -> Job:
        """The job after a report on its first attempt."""
        return self.darkroom.report(job.id, 1, report).after

    def get(self, job: Job) -> Job:
        """The job as it stands."""
        return self.darkroom.get(job.id)

    def callback_path(self, job: Job, attempt: int = 1, key: str = SECRET) -> str:
        """Where the provider of the job calls back."""
        return callback_url.callback_url("/webhooks", job.provider, job.id, attempt, [key])


@pytest.fixture
def webhook_secret() -> str:
    """The secret of `signed_update`."""
    return WEBHOOK_SECRET


@pytest.fixture
def signed_update() -> Callable[[Any], tuple[Mapping[str, str], str]]:
    """Signs an update as Standard Webhooks has it: its headers, its body."""

    def signed(update: Any) -> tuple[Mapping[str, str], str]:
        body, now = json.dumps(update), datetime.now(UTC)
        signature = Webhook(WEBHOOK_SECRET).sign("update-1", now, body)
        headers = {"webhook-id": "update-1", "webhook-timestamp": str(int(now.timestamp()))}
        return {**headers, "webhook-signature": signature}, body

    return signed


@pytest.fixture
def jobs(darkroom: Darkroom) -> Iterator[Jobs]:
    """Brings jobs into being."""
    return Jobs(darkroom)


@dataclass(frozen=True)
class Grants:
    """Makes API keys, and clients that hold them."""

    store: KeyStore
    client: FlaskClient

    def __call__(self, name: str, *scopes: str) -> ApiClient:
        """A client with a new key, once every receiver would know it."""
        _, secret = self.store.create(name, scopes or tuple(Scope))
        time.sleep(NEW_KEY_SECONDS)
        return ApiClient(self.client, secret)


@pytest.fixture
def grant(settings: Settings, client: FlaskClient) -> Grants:
    """Makes clients with keys of their own: `grant("shop", "jobs:read")`."""
    return Grants(KeyStore.open(settings.redis_url), client)


@pytest.fixture
def picture() -> bytes:
    """A small PNG."""
    content = io.BytesIO()
    PIL.Image.new("RGB", (64, 48), "navy").save(content, "PNG")
    return content.getvalue()


@dataclass(frozen=True)
class Served:
    """The address of a receiver, and its process."""

    port: int
    process: Process

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """One exchange on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            chunked = not isinstance(body, str | bytes | None)
            connection.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def lives(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.ask("GET", "/healthz")[0] == 200)
        except OSError:
            return False


@pytest.fixture
def serve(processes: Processes, free_port: int, settings: Settings) -> Iterator[Callable[..., Served]]:
    """Starts a granian worker with so many threads."""
    started: list[Process] = []

    def start(threads: int, *options: str, **environ: str) -> Served:
        arguments = [sys.executable, "-m", "granian", "--interface", "wsgi", "--factory", "webhooks:create_app"]
        known = {
            "GRANIAN_BLOCKING_THREADS": str(threads),
            "DARKROOM_REDIS_URL": settings.redis_url,
            "DARKROOM_STORAGE_URL": settings.storage_url,
            "DARKROOM_PUBLIC_URL": settings.public_url,
            "DARKROOM_SECRET_KEYS": SECRET,
            "DARKROOM_API_KEYS": KEY,
        }
        place = ["--host", "127.0.0.1", "--port", str(free_port), *options]
        command = Command(
            f"receiver-{free_port}", [*arguments, *place], {**known, **environ}, Path(__file__).parents[2]
        )
        started.append(processes.start(command))
        receiver = Served(free_port, started[-1])
        started[-1].await_ready(receiver.lives)
        return receiver

    yield start
    for process in started:
        processes.stop(process)
