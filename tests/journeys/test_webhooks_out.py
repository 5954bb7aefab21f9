"""Webhooks through real processes: sent when a job ends, verified by npm's library, beside a dead endpoint, across a SIGKILL."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook

from jobs import Job, Status
from jobs.embedded import Process
from jobs.providers import aimlapi, deepmode
from jobs.view import JobView

pytestmark = pytest.mark.journey

OLD, NEW = "whsec_b2xkIHNlY3JldCBvbGQgc2VjcmV0IG9sZCBzZWNyZXQ=", "whsec_bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldyBzZWNyZXQ="


@dataclass
class Endpoint:
    """An endpoint that holds each request until a test lets it answer."""

    port: int = 0
    status: int = 204
    is_open: threading.Event = field(default_factory=threading.Event)
    messages: list[tuple[Mapping[str, str], str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=canary-of-the-query"

    def webhook_events(self, job: Job) -> list[dict[str, Any]]:
        """The messages about a job."""
        return [body for body in map(json.loads, (text for _, text in self.messages)) if body["id"] == job.id]


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            endpoint.messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
            endpoint.is_open.wait(20)
            self.send_response(endpoint.status)
            self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.is_open.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that accepts everything."""
    with serving(Endpoint()) as one:
        one.is_open.set()
        yield one


@pytest.fixture
def dead() -> Iterator[str]:
    """The URL of an endpoint with another host name that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(512)
        yield f"http://127.0.0.2:{listener.getsockname()[1]}/hook"


@pytest.fixture(scope="module")
def site(sites: Any, bucket: Any) -> Any:
    """A site that signs webhooks with two secrets, in the middle of a rotation."""
    return sites.new("telling", {"DARKROOM_WEBHOOK_SECRETS": f"{NEW},{OLD}"}, storage=bucket.storage())


@pytest.fixture(scope="module")
def worker(site: Any) -> Process:
    """Its worker."""
    process: Process = site.start_worker()
    site.await_workers(process)
    return process


def delivered(site: Any, job: Job, wait_until: Callable[..., None]) -> Job:
    """The job once all its deliveries were accepted."""

    def done() -> bool:
        found = site.darkroom.get(job.id).deliveries
        return bool(found) and all(item.delivered_at for item in found)

    wait_until(done, f"the deliveries of {job.id}")
    return site.darkroom.get(job.id)  # type: ignore[no-any-return]


def canceled(site: Any, url: str) -> Job:
    """A final job that no provider has seen."""
    job = site.darkroom.enqueue(deepmode.Generate(model_id="m", prompt="p"), webhook_url=url)
    return site.darkroom.cancel(job.id)  # type: ignore[no-any-return]


def test_the_end_of_a_job_sends_one_webhook_that_both_libraries_verify(
    site: Any, worker: Process, endpoint: Endpoint, picture: bytes, verified_by_npm: Any, wait_until: Any
) -> None:
    request = aimlapi.ReveRemix(image_urls=[picture], prompt="a mug with a webhook")
    job = site.run(request, webhook_url=endpoint.url, webhook_events=["succeeded", "failed"])
    assert job.status is Status.SUCCEEDED
    job = delivered(site, job, wait_until)
    ((headers, body),) = endpoint.messages
    message = json.loads(body)
    assert (message["id"], message["status"], len(message["artifacts"])) == (job.id, "succeeded", 1)
    assert {**message, "artifacts": 0, "deliveries": 0} == {
        **JobView.of(job).model_dump(mode="json"),
        "artifacts": 0,
        "deliveries": 0,
    }
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(body, dict(headers)) == message
        assert verified_by_npm(secret, headers, body) == {"payload": message}
        assert "refused" in verified_by_npm(secret, headers, body + " ")
    assert (job.deliveries[0].tries, job.deliveries[0].log[0].status) == (1, 204)


def test_two_hundred_jobs_of_a_dead_endpoint_delay_no_other_endpoint(
    site: Any, worker: Process, endpoint: Endpoint, dead: str, wait_until: Any
) -> None:
    theirs = [canceled(site, dead) for _ in range(200)]
    ours = [canceled(site, endpoint.url) for _ in range(20)]
    for job in ours:
        told = delivered(site, job, wait_until).deliveries[0]
        assert told.delivered_at - told.created_at < timedelta(seconds=6)
    assert not any(site.darkroom.get(job.id).deliveries[0].delivered_at for job in theirs)


def darkroom(site: Any, *arguments: str) -> str:
    """The output of a command, which must succeed."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    environ = {"PATH": "/usr/bin:/bin", **site.environ}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
    return ended.stdout


def test_the_command_line_shows_deliveries_and_redelivers(
    site: Any, worker: Process, endpoint: Endpoint, wait_until: Any
) -> None:
    endpoint.status = 500
    job = canceled(site, endpoint.url)
    wait_until(lambda: site.darkroom.get(job.id).deliveries[0].tries, "a try")
    shown = darkroom(site, "deliveries", job.id)
    assert f"msg_{job.id}_1" in shown
    assert "500" in shown
    assert "next try in" in shown
    endpoint.status = 200
    assert "will be delivered again" in darkroom(site, "redeliver", job.id, f"msg_{job.id}_1")
    delivered(site, job, wait_until)
    shown += (
        darkroom(site, "deliveries", job.id)
        + darkroom(site, "get", job.id)
        + darkroom(site, "deliveries", job.id, "--json")
    )
    assert "delivered, 1 try" in shown
    assert "canary" not in shown
    first, *_, last = endpoint.messages
    assert first[0]["webhook-id"] == last[0]["webhook-id"]


def test_a_delivery_survives_the_death_of_the_worker_that_sent_it(
    site: Any, worker: Process, endpoint: Endpoint, wait_until: Any
) -> None:
    endpoint.is_open.clear()
    job = canceled(site, endpoint.url)
    wait_until(lambda: endpoint.webhook_events(job), "the message")
    site.processes.kill(worker)
    assert site.darkroom.get(job.id).deliveries[0].tries == 0, "nobody wrote that it was tried"
    endpoint.is_open.set()
    began = time.monotonic()
    another = site.start_worker("another")
    try:
        job = delivered(site, job, wait_until)
    finally:
        site.processes.stop(another)
    assert time.monotonic() - began < 20
    assert len(endpoint.webhook_events(job)) == 2
    ids = {headers["webhook-id"] for headers, body in endpoint.messages if job.id in body}
    assert ids == {job.deliveries[0].id}, "the receiver can tell that it is the same message"
