"""Artifacts of a folder under signed paths."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from jobs.settings import Settings
from jobs.storage import sign_path

KEY = "jobs/abc/1/0.png"


@pytest.fixture(autouse=True)
def _stored(darkroom: Any) -> None:
    darkroom.storage.put(KEY, b"an image", content_type="image/png", metadata={"sha256": "f" * 64})


def signed(key: str = KEY, seconds: int = 60, secret: str = "the-signing-secret") -> str:
    """The signed path of a file."""
    return f"/files/{key}?{sign_path(key, expires=int(time.time()) + seconds, secret_keys=[secret])}"


def test_a_signed_path_serves_the_file(client: FlaskClient) -> None:
    answer = client.get(signed(), buffered=True)

    assert (answer.data, answer.content_type) == (b"an image", "image/png")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == "inline"
    assert "private" in answer.headers["Cache-Control"]


def test_ranges_and_etags_are_supported(client: FlaskClient) -> None:
    part = client.get(signed(), headers={"Range": "bytes=3-5"}, buffered=True)
    again = client.get(signed(), headers={"If-None-Match": part.headers["ETag"]}, buffered=True)

    assert (part.status_code, part.data) == (206, b"ima")
    assert again.status_code == 304


def test_the_key_before_the_last_rotation_is_still_valid(client: FlaskClient) -> None:
    assert client.get(signed(secret="the-one-before"), buffered=True).status_code == 200


@pytest.mark.parametrize("query", ["", "?expires=9999999999", "?expires=9999999999&signature=x", "?signature="])
def test_a_path_without_a_valid_signature_is_forbidden(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/files/{KEY}{query}")

    assert (answer.status_code, answer.content_type) == (403, "application/problem+json")


def test_an_expired_path_is_forbidden(client: FlaskClient) -> None:
    assert client.get(signed(seconds=-1)).status_code == 403


def test_a_signature_is_valid_for_one_file(client: FlaskClient, darkroom: Any) -> None:
    darkroom.storage.put("jobs/abc/1/1.png", b"another", content_type="image/png", metadata={})

    assert client.get(signed().replace("0.png", "1.png")).status_code == 403


@pytest.mark.parametrize("key", ["jobs/gone.png", "../../etc/passwd", ".metadata/jobs/abc/1/0.png.json", "jobs/abc"])
def test_a_file_that_does_not_exist_is_not_found(client: FlaskClient, key: str) -> None:
    assert client.get(signed(key=key)).status_code == 404


def test_files_of_a_bucket_are_not_served(settings: Settings, new_app: Any) -> None:
    bucket = new_app(settings=settings.model_copy(update={"storage_url": "s3://bucket"})).test_client()

    assert bucket.get(signed()).status_code == 404
