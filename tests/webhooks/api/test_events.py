"""A job as server-sent events."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from jobs.report import Code, Failed, Running
from webhooks.api.events import job_events

AUTHORIZED = {"Authorization": "Bearer the-api-key-of-a-test"}
RESULT = json.dumps({"images": [{"id": "a", "image_url": "https://pictures.example.com/a.png"}]})


def parsed(text: str) -> list[dict[str, str]]:
    """The events of a stream, each as its fields."""
    blocks = [block for block in text.split("\n\n") if "data: " in block]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def statuses(text: str) -> list[str]:
    """The statuses in a stream."""
    return [json.loads(event["data"])["status"] for event in parsed(text)]


def test_a_job_is_followed_to_its_end(api: Any, jobs: Any) -> None:
    job = jobs.submitting()
    reports = iter([Running(), Failed(Code.MODERATED, "no")])

    with api.client.get(f"/v1/jobs/{job.id}/events", headers=AUTHORIZED) as answer:
        assert (answer.status_code, answer.content_type) == (200, "text/event-stream")
        text = ""
        for chunk in answer.iter_encoded():
            text += chunk.decode()
            if b"data: " in chunk and (report := next(reports, None)):
                jobs.reported(job, report)

    assert statuses(text) == ["submitting", "running", "failed"]
    assert {event["event"] for event in parsed(text)} == {"job"}
    assert text.startswith("retry: ")


def test_an_event_that_the_client_has_is_not_sent_again(api: Any, jobs: Any) -> None:
    job = jobs.submitting()
    known = jobs.get(job).version
    jobs.reported(job, Failed(Code.MODERATED, "no"))

    resumed = api.get(f"/v1/jobs/{job.id}/events", {"Last-Event-ID": known})
    again = api.get(f"/v1/jobs/{job.id}/events", {"Last-Event-ID": "1.1.other"})
    last = parsed(resumed.text)[-1]["id"]
    done = api.get(f"/v1/jobs/{job.id}/events", {"Last-Event-ID": last})

    assert statuses(resumed.text) == ["failed"]
    assert statuses(again.text) == ["failed"]
    assert (done.status_code, done.data) == (204, b"")


def test_a_stream_ends_in_time(new_app: Callable[..., Flask], api: Any, jobs: Any) -> None:
    short = type(api)(new_app(stream_seconds=0.2).test_client())

    assert statuses(short.get(f"/v1/jobs/{jobs.submitting().id}/events").text) == ["submitting"]


def test_a_silent_stream_has_heartbeats(darkroom: Any, jobs: Any) -> None:
    job = jobs.submitting()
    changes = darkroom.repository.changes
    lines = list(job_events(changes, job.id, lambda: darkroom.get(job.id), "", 0.5, heartbeat_seconds=0.1))

    assert statuses("".join(lines)) == ["submitting"]
    assert ": heartbeat" in "".join(lines)


def test_a_job_that_does_not_exist_has_no_stream(api: Any) -> None:
    answer = api.get(f"/v1/jobs/{'0' * 32}/events")

    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_a_client_that_may_not_wait_should_retry(new_app: Callable[..., Flask], api: Any, jobs: Any) -> None:
    alone = type(api)(new_app(threads=1).test_client())

    answer = alone.get(f"/v1/jobs/{jobs.submitting().id}/events")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_a_stream_that_is_never_read_stops_waiting(new_app: Callable[..., Flask], jobs: Any) -> None:
    client = new_app(threads=4).test_client()
    path = f"/v1/jobs/{jobs.submitting().id}/events"

    for _ in range(10):
        answer = client.get(path, headers=AUTHORIZED)
        assert answer.status_code == 200
        answer.close()


@pytest.fixture
def crowd(serve: Any, jobs: Any) -> Iterator[tuple[Any, Any, list[http.client.HTTPResponse]]]:
    """A receiver of eight threads, a job, and six clients that follow it."""
    served, job = serve(8), jobs.submitting()
    connections = [http.client.HTTPConnection("127.0.0.1", served.port, timeout=10) for _ in range(6)]
    streams = []
    for connection in connections:
        connection.request("GET", f"/v1/jobs/{job.id}/events", headers=AUTHORIZED)
        streams.append(connection.getresponse())
    yield served, job, streams
    for connection in connections:
        connection.close()


def test_streams_never_starve_callbacks(crowd: Any, jobs: Any) -> None:
    served, job, streams = crowd
    assert [stream.status for stream in streams] == [200] * 6
    assert served.ask("GET", f"/v1/jobs/{job.id}/events", headers=AUTHORIZED)[0] == 503

    called = [jobs.submitting() for _ in range(20)]
    assert [served.ask("POST", jobs.callback_path(one), RESULT)[0] for one in called] == [200] * 20

    jobs.reported(job, Failed(Code.MODERATED, "no"))
    for stream in streams:
        assert statuses(stream.read().decode()) == ["submitting", "failed"]


def test_slow_bodies_never_starve_callbacks(serve: Any, jobs: Any) -> None:
    served = serve(8)
    head = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(16)]
    for one in slow:
        one.sendall(f"{head}Authorization: {AUTHORIZED['Authorization']}\r\n\r\nhello".encode())
    while served.ask("POST", "/v1/jobs", "{}", AUTHORIZED)[0] != 503:
        time.sleep(0.05)

    called = [jobs.submitting() for _ in range(10)]
    assert [served.ask("POST", jobs.callback_path(one), RESULT)[0] for one in called] == [200] * 10

    for one in slow:
        one.close()
    while served.ask("POST", "/v1/jobs", "{}", AUTHORIZED)[0] == 503:
        time.sleep(0.05)


def test_unfinished_requests_hold_no_thread(serve: Any) -> None:
    served = serve(4)
    heads = [b"POST /v1/jobs HTTP/1.1\r\nAuth", b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"]
    silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(20)]
    for number, one in enumerate(silent):
        one.sendall(heads[number % 2])

    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: served.ask("GET", "/healthz")[0], range(20)))

    assert answers == [200] * 20
    for one in silent:
        one.close()
