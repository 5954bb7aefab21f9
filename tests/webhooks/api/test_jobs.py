"""Jobs over HTTP: reading, listing, waiting, and the actions on one of them."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from jobs import transitions
from jobs.images import Artifact
from jobs.job import Status
from jobs.report import Charged, Code, Failed, Image, Running, Succeeded

MISSING = "0" * 32
RENDERED = Succeeded((Image(0, url="https://pictures.example.com/a.png?sig=a-secret-signature"),))


@pytest.fixture
def stored(jobs: Any, darkroom: Any) -> Any:
    """A job that succeeded with one image in the storage."""
    job = jobs.submitting(metadata={"user": "42"})
    jobs.reported(job, RENDERED)
    key = f"jobs/{job.id}/1/0.png"
    darkroom.storage.put(key, b"a picture", content_type="image/png", metadata={"sha256": "f" * 64})
    artifact = Artifact(0, key, "image/png", 9, "f" * 64, 2, 3)
    return darkroom.advance(job.id, lambda job, now: transitions.stored(job, 1, {0: artifact}, now)).after


class TestAJob:
    def test_is_answered_as_it_is_now(self, api: Any, stored: Any, client: FlaskClient) -> None:
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

    def test_is_answered_without_its_request_or_a_providers_url(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, RENDERED)

        answer = api.get(f"/v1/jobs/{job.id}").text

        assert "a lake at dawn" not in answer
        assert "pictures.example.com" not in answer

    def test_has_the_error_of_its_failure(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, Failed(Code.MODERATED, "DeepMode: not this"))

        shown = api.get(f"/v1/jobs/{job.id}").json

        assert shown["error"] == {"code": "moderated", "message": "DeepMode: not this"}
        assert shown["finished_at"].endswith("Z")

    @pytest.mark.parametrize("id", [MISSING, "x", "a" * 500, "%00"])
    def test_that_does_not_exist_is_not_found(self, api: Any, id: str) -> None:
        answer = api.get(f"/v1/jobs/{id}")

        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")

    def test_is_not_sent_again_to_a_client_that_has_it(self, api: Any, jobs: Any) -> None:
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

    def test_is_too_late_when_images_are_being_stored(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, RENDERED)

        answer = api.post(f"/v1/jobs/{job.id}/cancel")

        assert (answer.status_code, answer.json["reason"]) == (409, "too_late")
        assert jobs.get(job).status is Status.STORING

    def test_does_not_change_a_final_job(self, api: Any, stored: Any) -> None:
        answer = api.post(f"/v1/jobs/{stored.id}/cancel")

        assert (answer.status_code, answer.json["reason"]) == (409, "already_final")

    def test_needs_a_key(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.queued()

        assert client.post(f"/v1/jobs/{job.id}/cancel").status_code == 401
        assert jobs.get(job).status is Status.QUEUED


class TestRetry:
    def test_queues_a_job_again_that_cost_nothing(self, api: Any, jobs: Any) -> None:
        job = jobs.queued()
        api.post(f"/v1/jobs/{job.id}/cancel")

        answer = api.post(f"/v1/jobs/{job.id}/retry")

        assert (answer.status_code, answer.json["status"]) == (202, "queued")

    def test_needs_consent_to_a_second_charge(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, Failed(Code.MODERATED, "no", charged=Charged.YES))

        refused = api.post(f"/v1/jobs/{job.id}/retry", json={})
        accepted = api.post(f"/v1/jobs/{job.id}/retry", json={"may_charge_again": True})

        assert (refused.status_code, refused.json["reason"]) == (409, "charge_possible")
        assert (accepted.status_code, accepted.json["status"]) == (202, "queued")

    def test_is_refused_before_the_job_is_final(self, api: Any, jobs: Any) -> None:
        answer = api.post(f"/v1/jobs/{jobs.queued().id}/retry")

        assert (answer.status_code, answer.json["reason"], answer.json["job_status"]) == (409, "not_final", "queued")

    @pytest.mark.parametrize("body", [{"may_charge_again": "yes"}, {"nonsense": 1}, [], "x"])
    def test_with_an_invalid_body_is_refused(self, api: Any, jobs: Any, body: Any) -> None:
        assert api.post(f"/v1/jobs/{jobs.queued().id}/retry", json=body).status_code == 422


class TestRedeliver:
    def test_sends_a_webhook_again(self, api: Any, jobs: Any) -> None:
        job = jobs.queued(webhook_url="https://app.example.com/hook?token=a-secret-token")
        shown = api.post(f"/v1/jobs/{job.id}/cancel").json

        answer = api.post(f"/v1/jobs/{job.id}/redeliver", json={"delivery": shown["deliveries"][0]["id"]})

        assert (answer.status_code, answer.json["deliveries"][0]["event"]) == (202, "canceled")
        assert answer.json["webhook_url"] == "https://app.example.com/hook"
        assert "a-secret-token" not in answer.text

    @pytest.mark.parametrize("body", [None, {"delivery": "msg_other"}])
    def test_is_refused_without_such_a_delivery(self, api: Any, jobs: Any, body: Any) -> None:
        answer = api.post(f"/v1/jobs/{jobs.queued().id}/redeliver", json=body)

        assert (answer.status_code, answer.json["reason"]) == (409, "no_such_delivery")


class TestWaiting:
    def test_ends_when_the_job_is_final(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        threading.Timer(0.3, jobs.reported, (job, Failed(Code.MODERATED, "no"))).start()

        answer = api.get(f"/v1/jobs/{job.id}", {"Prefer": "wait=60"})

        assert answer.json["status"] == "failed"
        assert answer.headers["Preference-Applied"] == "wait=60"

    def test_ends_after_the_preferred_time(self, api: Any, jobs: Any) -> None:
        started = time.monotonic()
        answer = api.get(f"/v1/jobs/{jobs.queued().id}", {"Prefer": "respond-async, wait=1"})

        assert (answer.status_code, answer.json["status"]) == (200, "queued")
        assert time.monotonic() - started >= 1
        assert answer.headers["Preference-Applied"] == "wait=1"

    @pytest.mark.parametrize("preference", ["", "wait", "wait=", "wait=soon", "wait=-1", "return=minimal"])
    def test_needs_a_valid_preference(self, api: Any, jobs: Any, preference: str) -> None:
        answer = api.get(f"/v1/jobs/{jobs.queued().id}", {"Prefer": preference})

        assert answer.status_code == 200
        assert "Preference-Applied" not in answer.headers

    def test_is_not_needed_for_a_final_job(self, new_app: Any, api: Any, stored: Any) -> None:
        alone = type(api)(new_app(threads=1).test_client())

        answer = alone.get(f"/v1/jobs/{stored.id}", {"Prefer": "wait=20"})

        assert (answer.json["status"], answer.headers["Preference-Applied"]) == ("succeeded", "wait=20")

    def test_is_refused_where_every_thread_is_needed_for_callbacks(self, new_app: Any, jobs: Any, api: Any) -> None:
        alone = type(api)(new_app(threads=1).test_client())

        answer = alone.get(f"/v1/jobs/{jobs.queued().id}", {"Prefer": "wait=20"})

        assert (answer.status_code, answer.json["status"]) == (200, "queued")
        assert "Preference-Applied" not in answer.headers


class TestTheList:
    def test_has_the_newest_jobs_first_in_pages(self, api: Any, jobs: Any) -> None:
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

    def test_can_be_filtered_by_status_and_operation(self, api: Any, jobs: Any, stored: Any) -> None:
        queued, remix = jobs.queued(), jobs.queued("chainhub")

        def found(query: str) -> set[str]:
            return {job["id"] for job in api.get(f"/v1/jobs?{query}").json["jobs"]}

        assert found("status=succeeded") == {stored.id}
        assert found("status=queued") == {queued.id, remix.id}
        assert found("status=queued,succeeded&operation=deepmode.generate") == {queued.id, stored.id}
        assert found("operation=phota.remix") == set()

    def test_can_be_filtered_by_code_metadata_and_time(self, api: Any, jobs: Any) -> None:
        first = jobs.submitting(metadata={"user": "42", "size": 7})
        jobs.reported(first, Failed(Code.MODERATED, "DeepMode: not this"))
        second = jobs.queued()

        def found(query: str) -> set[str]:
            return {job["id"] for job in api.get(f"/v1/jobs?{query}").json["jobs"]}

        assert found("code=moderated") == found("metadata.user=42&metadata.size=7") == {first.id}
        assert found("metadata.user=42&metadata.size=8") == found("metadata.shop=42") == set()
        assert found(f"created_after={quote(first.created_at.isoformat())}") == {second.id}

    def test_names_each_fault_at_once(self, api: Any) -> None:
        query = "status=faild&operation=x&code=moderate&created_after=2026-11-26&limit=0&cursor=x&metdata.user=42"

        answer = api.get(f"/v1/jobs?{query}")

        assert answer.status_code == 422
        assert {error["field"] for error in answer.json["errors"]} == {
            "status",
            "operation",
            "code",
            "created_after",
            "limit",
            "cursor",
            "metdata.user",
        }
        assert 'did you mean "failed"?' in answer.json["detail"]

    @pytest.mark.parametrize(
        "query",
        [
            "status=lost",
            "code=lost",
            "created_after=yesterday",
            "created_after=2026-11-26T08:00:00",
            "metadata=x",
            "metadata=x&metadata.user=42",
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
    def test_names_each_invalid_parameter(self, api: Any, query: str) -> None:
        answer = api.get(f"/v1/jobs?{query}")

        assert answer.status_code == 422
        assert answer.json["errors"][0]["field"].partition(".")[0] == query.partition("=")[0]
