"""Callbacks that arrive while Redis is away are on the disk before they are answered, and applied when Redis is back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from jobs import DarkroomError, InvalidRequest, Status
from jobs.errors import FieldError
from jobs.providers import InvalidProvider
from jobs.settings import Settings
from jobs.storage.spool import Spool
from webhooks.callbacks import ACCEPTED, apply_callback
from webhooks.spooled import CallbackSpool

RESULT = {"images": [{"id": "1", "image_url": "https://images.test/1.jpg?sig=a"}]}


@pytest.fixture
def spool(settings: Settings) -> Spool:
    """Where callbacks wait."""
    return Spool(settings.spool_dir / "callbacks", 1 << 20)


@pytest.fixture
def cut_off(settings: Settings, new_app: Any) -> Iterator[FlaskClient]:
    """A receiver that cannot reach Redis."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"})
        yield new_app(settings=away).test_client()


@pytest.fixture
def replay(spool: Spool, darkroom: Any) -> CallbackSpool:
    """The replay of a receiver that reaches Redis."""
    return CallbackSpool(spool, partial(apply_callback, darkroom))


def test_a_callback_is_accepted_and_written_to_the_disk(cut_off: FlaskClient, jobs: Any, spool: Spool) -> None:
    answer = cut_off.post(jobs.callback_path(jobs.submitting()), json=RESULT)

    assert (answer.status_code, answer.data) == (200, ACCEPTED)
    assert len(spool.names()) == 1
    assert cut_off.get("/healthz").json["callbacks_on_disk"] == 1


def test_it_is_applied_when_redis_is_back(cut_off: FlaskClient, jobs: Any, spool: Spool, replay: CallbackSpool) -> None:
    job = jobs.submitting()
    cut_off.post(jobs.callback_path(job), json=RESULT)

    assert replay.replay() == 1

    assert jobs.get(job).status is Status.STORING
    assert spool.names() == ()


def test_callbacks_wait_while_redis_is_still_away(
    cut_off: FlaskClient, jobs: Any, spool: Spool, settings: Settings, new_app: Any
) -> None:
    cut_off.post(jobs.callback_path(jobs.submitting()), json=RESULT)

    cut_off.post(jobs.callback_path(jobs.submitting()), json=RESULT)

    assert len(spool.names()) == 2


def test_a_callback_of_a_deleted_job_does_not_stop_the_others(
    cut_off: FlaskClient, jobs: Any, spool: Spool, replay: CallbackSpool, redis: Any
) -> None:
    forgotten, job = jobs.submitting(), jobs.submitting()
    for each in (forgotten, job):
        cut_off.post(jobs.callback_path(each), json=RESULT)
    redis.delete(f"darkroom:job:{forgotten.id}")

    assert replay.replay() == 2

    assert jobs.get(job).status is Status.STORING


def test_a_callback_of_a_job_that_a_later_version_wrote_does_not_stop_the_others(
    cut_off: FlaskClient, jobs: Any, spool: Spool, replay: CallbackSpool, redis: Redis
) -> None:
    later, job = jobs.submitting(), jobs.submitting()
    for each in (later, job):
        cut_off.post(jobs.callback_path(each), json=RESULT)
    redis.set(f"darkroom:job:{later.id}", "999.1.0 {}")

    assert replay.replay() == 1

    assert jobs.get(job).status is Status.STORING
    assert len(spool.names()) == 1


def test_a_file_that_is_not_a_callback_does_not_stop_the_others(
    cut_off: FlaskClient, jobs: Any, spool: Spool, replay: CallbackSpool
) -> None:
    spool.write("0-", b"not a callback")
    job = jobs.submitting()
    cut_off.post(jobs.callback_path(job), json=RESULT)

    assert (replay.replay(), replay.replay()) == (1, 0)

    assert jobs.get(job).status is Status.STORING
    assert len(spool.names()) == 1


@pytest.mark.parametrize(
    "error", [InvalidProvider("it cannot be loaded"), InvalidRequest(FieldError("operation", "x"))]
)
def test_a_callback_whose_provider_cannot_be_used_at_the_moment_is_not_dropped(
    error: DarkroomError, cut_off: FlaskClient, jobs: Any, spool: Spool, replay: CallbackSpool
) -> None:
    job = jobs.submitting()
    cut_off.post(jobs.callback_path(job), json=RESULT)

    def cannot_read(*_: Any) -> None:
        raise error

    assert CallbackSpool(spool, cannot_read).replay() == 0
    assert len(spool.names()) == 1

    assert replay.replay() == 1  # a receiver that was started when the provider was repaired
    assert jobs.get(job).status is Status.STORING


def test_a_callback_with_an_invalid_token_never_reaches_the_disk(cut_off: FlaskClient, jobs: Any, spool: Spool) -> None:
    path = jobs.callback_path(jobs.submitting(), key="not-our-key")

    assert cut_off.post(path, json=RESULT).status_code == 403
    assert spool.names() == ()


def test_a_callback_is_refused_when_the_spool_is_full(settings: Settings, jobs: Any, new_app: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        full = settings.model_copy(update={"redis_url": url, "spool_max_bytes": 10})

        answer = new_app(settings=full).test_client().post(jobs.callback_path(jobs.submitting()), json=RESULT)

    assert answer.status_code == 503


def test_two_receivers_of_a_host_do_not_replay_at_the_same_time(replay: CallbackSpool, spool: Spool) -> None:
    spool.write("1-", b"{}")
    with replay._turn() as first, replay._turn() as second:
        assert (len(first), len(second)) == (1, 0)
