"""The application itself: how it starts and ends, its error pages, its log."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

import webhooks
from jobs import SettingsError
from jobs.settings import Settings
from webhooks.receiver import MAX_PATH_CHARACTERS

PROBLEM = "application/problem+json"


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A Python process with nothing else in its environment."""
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)


class TestStarting:
    def test_a_missing_secret_key_is_named_with_an_example(self, settings: Settings) -> None:
        with pytest.raises(SettingsError, match=r"DARKROOM_SECRET_KEYS: .*DARKROOM_SECRET_KEYS=\S+"):
            webhooks.create_app(settings.model_copy(update={"secret_keys": ()}), environ={})

    def test_a_malformed_provider_setting_is_named(self, settings: Settings) -> None:
        with pytest.raises(SettingsError, match="DEEPMODE_TIMEOUT_SECONDS"):
            webhooks.create_app(settings, environ={"DEEPMODE_TIMEOUT_SECONDS": "long"})

    def test_a_malformed_setting_ends_the_process(self) -> None:
        environ = {"DARKROOM_REDIS_URL": "http://nowhere", "DARKROOM_SECRET_KEYS": "a-long-secret"}

        ended = run("import webhooks; webhooks.create_app()", **environ)

        assert ended.returncode != 0
        assert "DARKROOM_REDIS_URL" in ended.stderr
        assert "DARKROOM_REDIS_URL=redis://" in ended.stderr

    def test_it_needs_neither_redis_nor_the_worker(self) -> None:
        environ = {"DARKROOM_REDIS_URL": "redis://127.0.0.1:1/0", "DARKROOM_SECRET_KEYS": "a-long-secret"}

        ended = run("import sys, webhooks; webhooks.create_app(); sys.exit('worker' in sys.modules)", **environ)

        assert ended.returncode == 0, ended.stderr


class TestClosing:
    def test_it_ends_every_thread_and_connection(self, settings: Settings, redis: Redis, jobs: Any, api: Any) -> None:
        job, threads, clients = (
            jobs.submitting(),
            set(threading.enumerate()),
            {client["id"] for client in redis.client_list()},
        )
        with webhooks.create_app(settings, environ={}, threads=8) as receiver:
            used = type(api)(receiver.test_client())
            assert used.client.post(jobs.callback_path(job), json={"images": []}).status_code == 200
            assert used.get(f"/v1/jobs/{job.id}", {"Prefer": "wait=1"}).status_code == 200
            assert set(threading.enumerate()) > threads

        assert set(threading.enumerate()) <= threads
        assert {client["id"] for client in redis.client_list()} <= clients

    def test_it_can_be_closed_twice(self, settings: Settings) -> None:
        receiver = webhooks.create_app(settings, environ={})

        receiver.close()
        receiver.close()

    def test_it_is_closed_when_the_interpreter_exits(self) -> None:
        environ = {"DARKROOM_REDIS_URL": "redis://127.0.0.1:1/0", "DARKROOM_SECRET_KEYS": "a-long-secret"}
        code = "import webhooks; app = webhooks.create_app(); app.resources.callback(print, 'closed')"

        assert run(code, **environ).stdout == "closed\n"


class TestErrorPages:
    @pytest.mark.parametrize(
        "path",
        ["/", "/nowhere", "/v1/nowhere", "/webhooks", "/webhooks/", "/webhooks/deepmode", "/webhooks/deepmode/a/b"],
    )
    def test_an_unknown_path_is_a_problem(self, client: FlaskClient, path: str) -> None:
        answer = client.get(path)

        assert (answer.status_code, answer.content_type) == (404, PROBLEM)
        assert answer.json["title"] == "Not Found"

    def test_a_path_that_is_too_long_is_refused_before_it_is_routed(self, client: FlaskClient) -> None:
        answer = client.get("/a" * MAX_PATH_CHARACTERS)

        assert (answer.status_code, answer.content_type) == (414, PROBLEM)

    def test_a_failure_is_logged_by_its_place_and_reveals_nothing(
        self, app: Flask, caplog: pytest.LogCaptureFixture
    ) -> None:
        @app.get("/broken/<secret>")
        def broken(secret: str) -> str:
            raise RuntimeError(f"about {secret}") from ValueError(secret)

        with caplog.at_level(logging.DEBUG):
            answer = app.test_client().get("/broken/a-secret-token")

        assert (answer.status_code, answer.content_type) == (500, PROBLEM)
        assert "a-secret-token" not in answer.text + caplog.text
        assert "RuntimeError, caused by ValueError" in caplog.text
        assert "in broken" in caplog.text
