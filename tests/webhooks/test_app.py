"""The application itself: its settings, its health, its files, its error pages."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import webhooks
from jobs import SettingsError
from jobs.settings import Settings
from jobs.storage import sign_path

PROBLEM = "application/problem+json"


class TestStarting:
    def test_without_a_secret_key_names_the_setting_and_an_example(self, settings: Settings) -> None:
        with pytest.raises(SettingsError, match=r"DARKROOM_SECRET_KEYS: .*DARKROOM_SECRET_KEYS=\S+"):
            webhooks.create_app(settings.model_copy(update={"secret_keys": ()}), environ={})

    def test_with_a_malformed_provider_setting_names_it(self, settings: Settings) -> None:
        with pytest.raises(SettingsError, match="DEEPMODE_TIMEOUT_SECONDS"):
            webhooks.create_app(settings, environ={"DEEPMODE_TIMEOUT_SECONDS": "long"})

    def test_with_a_malformed_setting_ends_the_process(self) -> None:
        environ = {"DARKROOM_REDIS_URL": "http://nowhere", "DARKROOM_SECRET_KEYS": "a-long-secret"}
        code = "import webhooks; webhooks.create_app()"

        ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)

        assert ended.returncode != 0
        assert "DARKROOM_REDIS_URL" in ended.stderr
        assert "DARKROOM_REDIS_URL=redis://" in ended.stderr

    def test_needs_neither_redis_nor_the_worker(self) -> None:
        environ = {"DARKROOM_REDIS_URL": "redis://127.0.0.1:1/0", "DARKROOM_SECRET_KEYS": "a-long-secret"}
        code = "import sys, webhooks; webhooks.create_app(); sys.exit('worker' in sys.modules)"

        ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)

        assert ended.returncode == 0, ended.stderr


class TestHealth:
    def test_the_process_lives(self, client: FlaskClient) -> None:
        assert client.get("/healthz").json == {"status": "ok", "callbacks_on_disk": 0}

    def test_it_is_ready_when_redis_and_the_storage_answer(self, client: FlaskClient) -> None:
        assert (client.get("/readyz").status_code, client.get("/readyz").json) == (200, {"status": "ok"})

    def test_what_does_not_answer_is_named_without_secrets(
        self, settings: Settings, new_app: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "a-file").touch()
        changes = {"redis_url": "redis://:a-password@127.0.0.1:1/0", "storage_url": f"file://{tmp_path}/a-file/in-it"}
        broken = new_app(settings=settings.model_copy(update=changes)).test_client()

        answer = broken.get("/readyz")

        assert (answer.status_code, answer.content_type) == (503, PROBLEM)
        assert set(answer.json["faults"]) == {"redis", "storage"}
        assert "a-password" not in answer.text
        assert str(tmp_path) not in answer.text
        assert broken.get("/healthz").status_code == 200


class TestFiles:
    KEY = "jobs/abc/1/0.png"

    @pytest.fixture(autouse=True)
    def _stored(self, darkroom: Any) -> None:
        darkroom.storage.put(self.KEY, b"a picture", content_type="image/png", metadata={"sha256": "f" * 64})

    def signed(self, key: str = KEY, seconds: int = 60, secret: str = "the-signing-secret") -> str:
        return f"/files/{key}?{sign_path(key, expires=int(time.time()) + seconds, secret_keys=[secret])}"

    def test_are_served_under_a_signed_path(self, client: FlaskClient) -> None:
        answer = client.get(self.signed(), buffered=True)

        assert (answer.data, answer.content_type) == (b"a picture", "image/png")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Disposition"] == "inline"
        assert "private" in answer.headers["Cache-Control"]

    def test_are_served_in_parts_and_not_twice(self, client: FlaskClient) -> None:
        part = client.get(self.signed(), headers={"Range": "bytes=2-4"}, buffered=True)
        again = client.get(self.signed(), headers={"If-None-Match": part.headers["ETag"]}, buffered=True)

        assert (part.status_code, part.data) == (206, b"pic")
        assert again.status_code == 304

    def test_open_with_the_key_before_the_last_rotation(self, client: FlaskClient) -> None:
        assert client.get(self.signed(secret="the-one-before"), buffered=True).status_code == 200

    @pytest.mark.parametrize("query", ["", "?expires=9999999999", "?expires=9999999999&signature=x", "?signature="])
    def test_stay_closed_without_a_signature(self, client: FlaskClient, query: str) -> None:
        answer = client.get(f"/files/{self.KEY}{query}")

        assert (answer.status_code, answer.content_type) == (403, PROBLEM)

    def test_close_when_their_time_is_over(self, client: FlaskClient) -> None:
        assert client.get(self.signed(seconds=-1)).status_code == 403

    def test_open_no_other_file(self, client: FlaskClient, darkroom: Any) -> None:
        darkroom.storage.put("jobs/abc/1/1.png", b"another", content_type="image/png", metadata={})

        assert client.get(self.signed().replace("0.png", "1.png")).status_code == 403

    @pytest.mark.parametrize(
        "key", ["jobs/gone.png", "../../etc/passwd", ".metadata/jobs/abc/1/0.png.json", "jobs/abc"]
    )
    def test_that_are_none_are_not_found(self, client: FlaskClient, key: str) -> None:
        assert client.get(self.signed(key=key)).status_code == 404

    def test_of_a_bucket_are_not_served_here(self, settings: Settings, new_app: Any) -> None:
        bucket = new_app(settings=settings.model_copy(update={"storage_url": "s3://bucket"})).test_client()

        assert bucket.get(self.signed()).status_code == 404


class TestErrorPages:
    @pytest.mark.parametrize("path", ["/", "/nowhere", "/v1/nowhere", "/webhooks/deepmode", "/webhooks/deepmode/a/b"])
    def test_a_path_that_is_not_served_is_a_problem(self, client: FlaskClient, path: str) -> None:
        answer = client.get(path)

        assert (answer.status_code, answer.content_type) == (404, PROBLEM)
        assert answer.json["title"] == "Not Found"

    def test_a_failure_of_ours_tells_a_stranger_nothing_and_the_log_where_it_was(
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
