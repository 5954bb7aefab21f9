"""What each request passes: its API key, and the rate limit of the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobs.settings import Settings

MISSING = "0" * 32
RESULT = {"images": [{"id": "a", "image_url": "https://pictures.example.com/a.png"}]}


@pytest.fixture
def limited(new_app: Callable[..., Flask], settings: Settings, api: Any) -> Any:
    """A client of a receiver that takes three requests a minute of each key."""
    app = new_app(settings=settings.model_copy(update={"rate_limit": "3/minute"}))
    return type(api)(app.test_client())


def test_there_is_no_limit_unless_one_is_set(api: Any) -> None:
    answer = api.get("/v1/jobs")

    assert "RateLimit" not in answer.headers


def test_each_answer_has_what_is_left(limited: Any) -> None:
    answers = [limited.get("/v1/jobs") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"key";q=3;w=60'}
    assert [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers] == [
        f'"key";r={n}' for n in (2, 1, 0)
    ]


def test_a_client_over_its_limit_is_told_when_to_retry(limited: Any) -> None:
    for _ in range(3):
        limited.get("/v1/jobs")

    answer = limited.get("/v1/jobs")

    assert (answer.status_code, answer.content_type) == (429, "application/problem+json")
    assert 18 <= int(answer.headers["Retry-After"]) <= 20
    assert answer.headers["RateLimit"].startswith('"key";r=0;t=')


def test_each_key_has_its_own_limit(limited: Any) -> None:
    another = type(limited)(limited.client, "another-api-key")
    for _ in range(4):
        limited.get("/v1/jobs")

    assert another.get("/v1/jobs").status_code == 200


def test_callbacks_are_never_limited(limited: Any, jobs: Any) -> None:
    called = [jobs.submitting() for _ in range(6)]

    assert {limited.client.post(jobs.callback_path(job), json=RESULT).status_code for job in called} == {200}


class TestWithoutAKey:
    @pytest.mark.parametrize(
        "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic the-api-key-of-a-test", "Bearer \xff"]
    )
    def test_nothing_is_answered(self, client: FlaskClient, jobs: Any, authorization: str | None) -> None:
        headers = {} if authorization is None else {"Authorization": authorization}

        answer = client.get(f"/v1/jobs/{jobs.queued().id}", headers=headers)

        assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    def test_nobody_learns_which_jobs_exist(self, client: FlaskClient, jobs: Any) -> None:
        existing, missing = client.get(f"/v1/jobs/{jobs.queued().id}"), client.get(f"/v1/jobs/{MISSING}")

        assert (existing.status_code, existing.data) == (missing.status_code, missing.data)

    def test_everything_is_refused_while_there_is_no_key(self, settings: Settings, new_app: Any, jobs: Any) -> None:
        closed = new_app(settings=settings.model_copy(update={"api_keys": ()})).test_client()

        for given in ("Bearer ", "Bearer the-api-key-of-a-test", ""):
            assert closed.get(f"/v1/jobs/{MISSING}", headers={"Authorization": given}).status_code == 401
