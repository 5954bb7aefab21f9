"""Messages about jobs: what a stock Celery worker makes of them, and when one is sent."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery, current_app
from redis import Redis

from jobs import queue
from jobs.darkroom import Darkroom
from jobs.images import InSpool, PendingImage
from jobs.job import Event, Job, Status
from jobs.providers import deepmode
from jobs.settings import Settings
from jobs.state.repository import Repository

STOCK = """
import os, sys
from celery import Celery

app = Celery("stock", broker=sys.argv[1])
app.conf.worker_hijack_root_logger = False

@app.task(name="darkroom.run", bind=True, ignore_result=True)
def run(task, *args, **kwargs):
    with open(sys.argv[2], "a") as received:
        received.write(f"{task.request.id} {task.request.delivery_info['routing_key']} {args!r} {kwargs!r}\\n")

app.worker_main(["worker", "-P", "solo", "-Q", "darkroom.deepmode", "--without-gossip", "--without-mingle", "-l", "warning"])
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_url, storage_url=f"file://{tmp_path}/images")


@pytest.fixture
def received(redis_url: str, tmp_path: Path) -> Iterator[Path]:
    """A stock Celery worker, which does not know Darkroom: a file with a line for each task that it received."""
    file = tmp_path / "received"
    file.touch()
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-c", STOCK, redis_url, str(file)], stderr=log, stdout=log)
        yield file
        worker.terminate()
        worker.wait(timeout=20)


def lines(file: Path, count: int, seconds: float = 30.0) -> list[str]:
    """The lines of the file, when there are so many."""
    give_up_at = time.monotonic() + seconds
    while len(found := file.read_text().splitlines()) < count and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return found


def job_of(repository: Repository, **changes: object) -> Job:
    now = repository.now()
    plain = Job(
        id=uuid.uuid4().hex,
        operation="deepmode.generate",
        params={},
        status=Status.QUEUED,
        created_at=now,
        updated_at=now,
        deadline_at=now + timedelta(seconds=600),
        deadline_seconds=600,
        images_expected=1,
        wake_at=now,
        timeline=(Event(now, "queued"),),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def repository(redis: Redis) -> Repository:
    return Repository(redis, retention_seconds=3600)


def test_a_stock_celery_worker_receives_the_job_id(settings: Settings, received: Path) -> None:
    darkroom = Darkroom.open(settings)
    request = deepmode.Generate(model_id="m", prompt="p")
    ids = [darkroom.enqueue(request).id for _ in range(5)]
    found = lines(received, 5)
    assert found == [f"{job_id} darkroom.deepmode ({job_id!r},) {{}}" for job_id in ids]


def test_our_message_equals_one_that_celery_sends(settings: Settings, repository: Repository, redis: Redis) -> None:
    """All but the name of the sender and the delivery tag."""
    app = queue.application(settings)
    job = job_of(repository)
    message = queue.Dispatch(app, broker_is_redis=True).message(job)
    assert message is not None
    queue.Dispatch(app, broker_is_redis=False).publish(job)
    app.close()
    theirs, ours = json.loads(redis.lindex("darkroom.deepmode", 0)), json.loads(message.body)
    assert json.loads(base64.b64decode(ours["body"])) == json.loads(base64.b64decode(theirs["body"]))
    assert ours["headers"].keys() == theirs["headers"].keys()
    assert {name for name in ours["headers"] if ours["headers"][name] != theirs["headers"][name]} <= {"origin"}
    assert ours["properties"].keys() == theirs["properties"].keys()
    assert ours["properties"]["delivery_info"]["routing_key"] == theirs["properties"]["delivery_info"]["routing_key"]
    assert (ours["content-type"], ours["content-encoding"]) == (theirs["content-type"], theirs["content-encoding"])


def test_each_message_has_a_delivery_tag_of_its_own(settings: Settings, repository: Repository) -> None:
    dispatch = queue.Dispatch(queue.application(settings), broker_is_redis=True)
    job = job_of(repository)
    messages = [dispatch.message(job) for _ in range(50)]
    tags = {json.loads(message.body)["properties"]["delivery_tag"] for message in messages if message}
    assert len(tags) == 50


def test_a_message_carries_the_job_id_and_nothing_else_of_the_job(settings: Settings, repository: Repository) -> None:
    job = job_of(repository, params={"prompt": "SECRET"}, metadata={"user": "SECRET"})
    message = queue.Dispatch(queue.application(settings), broker_is_redis=True).message(job)
    assert message is not None
    body, _, _ = json.loads(base64.b64decode(json.loads(message.body)["body"]))
    assert body == [job.id]
    assert b"SECRET" not in message.body
    assert message.queue == "darkroom.deepmode"
    assert len(message.body) < 1500


def test_messages_of_a_provider_go_to_its_own_queue(settings: Settings, repository: Repository) -> None:
    message = queue.Dispatch(queue.application(settings), True).message(job_of(repository, operation="phota.remix"))
    assert message is not None
    assert message.queue == "darkroom.phota" == queue.queue("phota").name


def test_the_brokers_own_acknowledgements_are_off(settings: Settings) -> None:
    conf = queue.application(settings).conf
    assert conf.broker_transport_options["ack_emulation"] is False
    assert (conf.task_acks_late, conf.task_ignore_result) == (False, True)


def test_a_producer_that_uses_celery_itself_keeps_its_own_application(settings: Settings) -> None:
    """Its shared tasks would go to our broker otherwise."""
    own = Celery("own", broker="memory://")
    Darkroom.open(settings)
    assert current_app.main == own.main


def test_options_of_redis_are_for_redis_only(settings: Settings) -> None:
    rabbit = settings.model_copy(update={"broker_url": "amqp://guest@rabbitmq//"})
    assert queue.application(rabbit).conf.broker_transport_options == {}
    assert not rabbit.broker_is_redis


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, True),
        ({"holder": "us"}, False),
        ({"status": Status.SUBMITTING, "wake_at": None, "holder": "us"}, False),
        ({"status": Status.RUNNING}, False),
        ({"status": Status.STORING, "pending": (PendingImage(0, 1, InSpool("spooled")),)}, True),
        ({"status": Status.STORING, "pending": (PendingImage(0, 1, InSpool("spooled")),), "holder": "us"}, False),
        ({"status": Status.CANCELED, "pending": (PendingImage(0, 1, InSpool("spooled")),)}, True),
        ({"status": Status.SUCCEEDED, "wake_at": None}, False),
    ],
)
def test_a_message_is_sent_only_when_there_is_something_to_do_now(
    settings: Settings, repository: Repository, changes: dict[str, object], needed: bool
) -> None:
    job = job_of(repository, **changes)
    assert queue.needs_worker(job) is needed
    dispatch = queue.Dispatch(queue.application(settings), broker_is_redis=True)
    assert (dispatch.message(job) is not None) is needed


def test_no_message_is_sent_about_a_job_that_must_wait(repository: Repository) -> None:
    job = job_of(repository)
    assert not queue.needs_worker(replace(job, wake_at=job.updated_at + timedelta(seconds=2)))
