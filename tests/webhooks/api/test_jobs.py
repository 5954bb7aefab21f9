"""Jobs over HTTP: who may see them, what they look like, and waiting for them."""

from __future__ import annotations

import base64
import io
import threading
import time
from typing import Any

import PIL.Image
import pytest
from flask.testing import FlaskClient

from jobs import transitions
from jobs.images import Artifact
from jobs.job import Status
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
    return darkroom.advance(job.id, lambda job, now: transitions.stored(job, 1, {0: artifact}, now)).after


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


NEW = {"operation": "deepmode.generate", "params": {"model_id": "m", "prompt": "a lake at dawn"}}


class TestANewJob:
    def test_is_accepted_with_the_place_where_it_can_be_followed(self, api: Any) -> None:
        answer = api.post("/v1/jobs", json={**NEW, "metadata": {"user": "42"}})

        assert (answer.status_code, answer.json["status"]) == (202, "queued")
        followed = api.get(answer.headers["Location"])
        assert followed.json["id"] == answer.json["id"]
        assert followed.json["metadata"] == {"user": "42"}

    def test_takes_every_option(self, api: Any) -> None:
        options = {"deadline_seconds": 60, "on_unknown": "charge_again", "keep_late": True}

        shown = api.post("/v1/jobs", json={**NEW, **options}).json

        assert (shown["on_unknown"], shown["keep_late"]) == ("charge_again", True)

    def test_is_one_job_under_one_idempotency_key(self, api: Any) -> None:
        first, second = (api.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=NEW) for _ in range(2))
        quoted = api.post("/v1/jobs", {"Idempotency-Key": '"order-17"'}, json=NEW)

        assert [answer.status_code for answer in (first, second, quoted)] == [202, 200, 200]
        assert len({answer.json["id"] for answer in (first, second, quoted)}) == 1

    def test_is_refused_where_the_key_was_used_for_another(self, api: Any) -> None:
        first = api.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=NEW)
        other = {**NEW, "params": {**NEW["params"], "prompt": "a hill"}}

        answer = api.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=other)

        assert (answer.status_code, answer.json["job_id"]) == (422, first.json["id"])

    def test_shares_its_idempotency_key_with_no_other_api_key(self, api: Any, client: FlaskClient) -> None:
        another = type(api)(client, "another-api-key")

        mine, theirs = (one.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=NEW) for one in (api, another))

        assert (mine.status_code, theirs.status_code) == (202, 202)
        assert mine.json["id"] != theirs.json["id"]

    def test_may_bring_its_pictures_as_base64(self, api: Any, darkroom: Any) -> None:
        params = {"prompt": "a lake", "image_file": base64.b64encode(picture()).decode()}

        answer = api.post("/v1/jobs", json={"operation": "chainhub.ideogram-remix", "params": params})

        assert answer.status_code == 202
        reference = darkroom.get(answer.json["id"]).params["image_file"]
        assert reference.startswith("staged:")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"operation": "nobody.nothing"}, "operation"),
            ({"operation": 3}, "operation"),
            ({"params": {"model_id": "m"}}, "params.prompt"),
            ({"params": {"model_id": "m", "prompt": "p", "num_images": 9}}, "params.num_images"),
            ({"params": {"model_id": "m", "prompt": "p", "nonsense": 1}}, "params.nonsense"),
            ({"params": []}, "params"),
            ({"metadata": {"much": "x" * 20_000}}, "metadata"),
            ({"deadline_seconds": 0}, "deadline_seconds"),
            ({"on_unknown": "hope"}, "on_unknown"),
            ({"keep_late": "yes"}, "keep_late"),
            ({"nonsense": 1}, "nonsense"),
        ],
    )
    def test_that_is_wrong_is_refused_by_the_name_of_its_field(
        self, api: Any, redis: Any, change: Any, field: str
    ) -> None:
        answer = api.post("/v1/jobs", json={**NEW, **change})

        assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
        assert [wrong["field"] for wrong in answer.json["errors"]] == [field]
        assert not redis.keys("darkroom:job:*")

    @pytest.mark.parametrize("content", ["bm8gcGljdHVyZQ==", "not base64", "http://example.com/a.png"])
    def test_whose_picture_is_none_is_refused(self, api: Any, content: str) -> None:
        params = {"prompt": "a lake", "image_file": content}

        answer = api.post("/v1/jobs", json={"operation": "chainhub.ideogram-remix", "params": params})

        assert answer.status_code == 422
        assert answer.json["errors"][0]["field"] == "params.image_file"

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            (b"{", "application/json", 400),
            (b"", "application/json", 400),
            (b"[]", "application/json", 422),
            (b"operation=x", "application/x-www-form-urlencoded", 415),
        ],
    )
    def test_is_json(self, api: Any, body: bytes, content_type: str, status: int) -> None:
        answer = api.post("/v1/jobs", data=body, content_type=content_type)

        assert (answer.status_code, answer.content_type) == (status, "application/problem+json")


class TestTheList:
    def test_shows_the_latest_first_page_by_page(self, api: Any, jobs: Any) -> None:
        made = [jobs.queued().id for _ in range(5)]
        seen, cursor = [], ""
        for _ in range(4):
            page = api.get(f"/v1/jobs?limit=2&cursor={cursor}").json
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["next_cursor"]
            if not cursor:
                break

        assert sorted(seen) == sorted(made)
        assert len(seen) == 5
        assert cursor is None

    def test_is_filtered_by_status_and_operation(self, api: Any, jobs: Any, stored: Any) -> None:
        queued, remix = jobs.queued(), jobs.queued("chainhub")

        def found(query: str) -> set[str]:
            return {job["id"] for job in api.get(f"/v1/jobs?{query}").json["jobs"]}

        assert found("status=succeeded") == {stored.id}
        assert found("status=queued") == {queued.id, remix.id}
        assert found("status=queued,succeeded&operation=deepmode.generate") == {queued.id, stored.id}
        assert found("operation=phota.remix") == set()

    @pytest.mark.parametrize(
        "query",
        [
            "status=lost",
            "limit=0",
            "limit=x",
            "limit=1000",
            "cursor=x",
            "nonsense=1",
            "operation=nobody.nothing",
            "unknown=1",
            "limit=1_0",
            "limit=5&limit=6",
        ],
    )
    def test_refuses_a_wrong_query_by_the_name_of_its_parameter(self, api: Any, query: str) -> None:
        answer = api.get(f"/v1/jobs?{query}")

        assert answer.status_code == 422
        assert answer.json["errors"][0]["field"].partition(".")[0] == query.partition("=")[0]


def picture() -> bytes:
    """A small PNG."""
    content = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), "navy").save(content, "PNG")
    return content.getvalue()
