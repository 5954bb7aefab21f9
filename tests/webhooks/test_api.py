"""Jobs over HTTP: who may see them, what they look like, and waiting for them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from jobs.job import Artifact, Status
from jobs.report import Code, Failed, Image, Running, Succeeded
from jobs.settings import Settings

NOBODY = "0" * 32
RENDERED = Succeeded((Image(0, url="https://pictures.example.com/a.png?sig=a-secret-signature"),))


@pytest.fixture
def stored(jobs: Any, darkroom: Any) -> Any:
    """A job that succeeded with one picture in the storage."""
    job = jobs.submitting(metadata={"user": "42"})
    jobs.reported(job, RENDERED)
    key = f"jobs/{job.id}/1/0.png"
    darkroom.storage.put(key, b"a picture", content_type="image/png", metadata={"sha256": "f" * 64})
    artifact = Artifact(0, key, "image/png", 9, "f" * 64, 2, 3)
    return darkroom.advance(job.id, lambda job, now: job.kept(1, {0: artifact}, now)).after


class TestWithoutAKey:
    @pytest.mark.parametrize(
        "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic the-api-key-of-a-test", "Bearer \xff"]
    )
    def test_nothing_is_shown(self, client: FlaskClient, jobs: Any, authorization: str | None) -> None:
        headers = {} if authorization is None else {"Authorization": authorization}

        answer = client.get(f"/v1/jobs/{jobs.queued().id}", headers=headers)

        assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    def test_nobody_learns_which_jobs_exist(self, client: FlaskClient, jobs: Any) -> None:
        existing, missing = client.get(f"/v1/jobs/{jobs.queued().id}"), client.get(f"/v1/jobs/{NOBODY}")

        assert (existing.status_code, existing.data) == (missing.status_code, missing.data)

    def test_everything_is_refused_while_none_is_configured(self, settings: Settings, new_app: Any, jobs: Any) -> None:
        closed = new_app(settings=settings.model_copy(update={"api_keys": ()})).test_client()

        for given in ("Bearer ", "Bearer the-api-key-of-a-test", ""):
            assert closed.get(f"/v1/jobs/{NOBODY}", headers={"Authorization": given}).status_code == 401


class TestAJob:
    def test_is_shown_as_it_stands(self, api: Any, stored: Any, client: FlaskClient) -> None:
        answer = api.get(f"/v1/jobs/{stored.id}")

        shown = answer.json
        assert (shown["id"], shown["operation"], shown["status"]) == (stored.id, "deepmode.generate", "succeeded")
        assert (shown["attempt"], shown["error"], shown["metadata"]) == (1, None, {"user": "42"})
        assert [(attempt["number"], attempt["outcome"]) for attempt in shown["attempts"]] == [(1, "succeeded")]
        assert shown["artifacts"][0] | {"url": ...} == {
            "index": 0,
            "key": f"jobs/{stored.id}/1/0.png",
            "url": ...,
            "content_type": "image/png",
            "size": 9,
            "sha256": "f" * 64,
            "width": 2,
            "height": 3,
        }
        assert client.get(shown["artifacts"][0]["url"], buffered=True).data == b"a picture"

    def test_shows_neither_its_request_nor_a_providers_url(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, RENDERED)

        answer = api.get(f"/v1/jobs/{job.id}").text

        assert "a lake at dawn" not in answer
        assert "pictures.example.com" not in answer

    def test_tells_why_it_failed(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, Failed(Code.MODERATED, "DeepMode: not this"))

        shown = api.get(f"/v1/jobs/{job.id}").json

        assert shown["error"] == {"code": "moderated", "message": "DeepMode: not this"}
        assert shown["finished_at"].endswith("Z")

    @pytest.mark.parametrize("id", [NOBODY, "x", "a" * 500, "%00"])
    def test_that_never_was_is_not_found(self, api: Any, id: str) -> None:
        answer = api.get(f"/v1/jobs/{id}")

        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")

    def test_is_not_sent_again_to_whoever_has_it(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        tag = api.get(f"/v1/jobs/{job.id}").headers["ETag"]

        same = api.get(f"/v1/jobs/{job.id}", {"If-None-Match": tag})
        jobs.reported(job, Running())
        changed = api.get(f"/v1/jobs/{job.id}", {"If-None-Match": tag})

        assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", tag)
        assert (changed.status_code, changed.json["status"]) == (200, "running")

    def test_says_when_to_ask_again_until_it_is_final(self, api: Any, jobs: Any, stored: Any) -> None:
        assert 1 <= int(api.get(f"/v1/jobs/{jobs.queued().id}").headers["Retry-After"]) <= 15
        assert "Retry-After" not in api.get(f"/v1/jobs/{stored.id}").headers


class TestCancel:
    @pytest.mark.parametrize("status", ["queued", "submitting"])
    def test_ends_a_job_that_waits_for_a_provider(self, api: Any, jobs: Any, status: str) -> None:
        job = getattr(jobs, status)()

        first, second = (api.post(f"/v1/jobs/{job.id}/cancel") for _ in range(2))

        assert (first.status_code, first.json["status"]) == (200, "canceled")
        assert (second.status_code, second.json["status"]) == (200, "canceled")

    def test_comes_too_late_for_pictures_that_are_being_stored(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, RENDERED)

        answer = api.post(f"/v1/jobs/{job.id}/cancel")

        assert (answer.status_code, answer.json["reason"]) == (409, "too_late")
        assert jobs.get(job).status is Status.STORING

    def test_changes_nothing_about_a_job_that_ended(self, api: Any, stored: Any) -> None:
        answer = api.post(f"/v1/jobs/{stored.id}/cancel")

        assert (answer.status_code, answer.json["reason"]) == (409, "already_final")

    def test_wants_a_key(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.queued()

        assert client.post(f"/v1/jobs/{job.id}/cancel").status_code == 401
        assert jobs.get(job).status is Status.QUEUED


class TestWaiting:
    def test_ends_as_soon_as_the_job_is_final(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        threading.Timer(0.3, jobs.reported, (job, Failed(Code.MODERATED, "no"))).start()

        started = time.monotonic()
        answer = api.get(f"/v1/jobs/{job.id}", {"Prefer": "wait=20"})

        assert answer.json["status"] == "failed"
        assert answer.headers["Preference-Applied"] == "wait=20"
        assert 0.2 < time.monotonic() - started < 2

    def test_is_over_after_the_time_that_was_asked_for(self, api: Any, jobs: Any) -> None:
        started = time.monotonic()
        answer = api.get(f"/v1/jobs/{jobs.queued().id}", {"Prefer": "respond-async, wait=1"})

        assert (answer.status_code, answer.json["status"]) == (200, "queued")
        assert 0.9 < time.monotonic() - started < 3
        assert answer.headers["Preference-Applied"] == "wait=1"

    @pytest.mark.parametrize("preference", ["", "wait", "wait=", "wait=soon", "wait=-1", "return=minimal"])
    def test_is_not_done_without_a_readable_wish(self, api: Any, jobs: Any, preference: str) -> None:
        answer = api.get(f"/v1/jobs/{jobs.queued().id}", {"Prefer": preference})

        assert answer.status_code == 200
        assert "Preference-Applied" not in answer.headers

    def test_is_not_done_for_a_final_job(self, api: Any, stored: Any) -> None:
        started = time.monotonic()

        assert api.get(f"/v1/jobs/{stored.id}", {"Prefer": "wait=20"}).json["status"] == "succeeded"
        assert time.monotonic() - started < 1

    def test_is_not_done_where_every_thread_is_needed_for_callbacks(self, new_app: Any, jobs: Any, api: Any) -> None:
        alone = type(api)(new_app(threads=1).test_client())

        answer = alone.get(f"/v1/jobs/{jobs.queued().id}", {"Prefer": "wait=20"})

        assert (answer.status_code, answer.json["status"]) == (200, "queued")
        assert "Preference-Applied" not in answer.headers
