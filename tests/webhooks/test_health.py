"""`/healthz` and `/readyz`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from jobs.settings import Settings


def test_a_running_process_is_healthy(client: FlaskClient) -> None:
    assert client.get("/healthz").json == {"status": "ok", "callbacks_on_disk": 0}


def test_it_is_ready_when_redis_and_the_storage_answer(client: FlaskClient) -> None:
    assert (client.get("/readyz").status_code, client.get("/readyz").json) == (200, {"status": "ok"})


def test_what_does_not_answer_is_named_without_secrets(settings: Settings, new_app: Any, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    changes = {"redis_url": "redis://:a-password@127.0.0.1:1/0", "storage_url": f"file://{tmp_path}/a-file/in-it"}
    broken = new_app(settings=settings.model_copy(update=changes)).test_client()

    answer = broken.get("/readyz")

    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert set(answer.json["faults"]) == {"redis", "storage"}
    assert "a-password" not in answer.text
    assert str(tmp_path) not in answer.text
    assert broken.get("/healthz").status_code == 200
