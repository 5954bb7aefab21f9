"""How often an API key may ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from jobs.settings import Settings

RESULT = {"images": [{"id": "a", "image_url": "https://pictures.example.com/a.png"}]}


@pytest.fixture
def limited(new_app: Callable[..., Flask], settings: Settings, api: Any) -> Any:
    """A client of a receiver that takes three requests a minute of each key."""
    app = new_app(settings=settings.model_copy(update={"rate_limit": "3/minute"}))
    return type(api)(app.test_client())


def test_without_a_setting_nobody_is_limited(api: Any) -> None:
    answer = api.get("/v1/jobs")

    assert "RateLimit" not in answer.headers


def test_each_answer_says_what_is_left(limited: Any) -> None:
    answers = [limited.get("/v1/jobs") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"key";q=3;w=60'}
    assert [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers] == [
        f'"key";r={n}' for n in (2, 1, 0)
    ]


def test_who_asks_too_often_is_told_when_to_come_again(limited: Any) -> None:
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
