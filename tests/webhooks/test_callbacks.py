"""What the receiver answers to callbacks, and what becomes of the job."""

from __future__ import annotations

import io
import logging
import socket
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from jobs import Job, callback_url, schedule, transitions
from jobs.attempt import Outcome
from jobs.job import Status
from jobs.report import Running
from jobs.settings import Settings
from webhooks.callbacks import ACCEPTED, MAX_BYTES, MAX_QUOTED_BYTES

IMAGE_URL = "https://pictures.example.com/a.png?sig=a-secret-signature"
RESULT = {"images": [{"id": "a", "image_url": IMAGE_URL}]}
FORBIDDEN = {
    "type": "about:blank",
    "title": "Forbidden",
    "status": 403,
    "detail": "The token or the signature is invalid.",
}


def changed(token: str, position: int) -> str:
    """The token with one character replaced."""
    other = "0" if token[position] != "0" else "1"
    return token[:position] + other + token[position + 1 :]


class TestACallbackWithOurToken:
    def test_is_in_redis_when_it_is_answered(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        answer = client.post(jobs.callback_path(job), json=RESULT)

        assert answer.status_code == 200
        stored = jobs.get(job)
        assert stored.status is Status.STORING
        assert stored.pending[0].url == IMAGE_URL

    def test_is_accepted_before_the_answer_to_the_submit(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()
        client.post(jobs.callback_path(job), json=RESULT)

        assert jobs.reported(job, Running()).status is Status.STORING

    def test_is_answered_alike_when_it_is_repeated(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()
        first, second = (client.post(jobs.callback_path(job), json=RESULT) for _ in range(2))

        assert (first.status_code, first.data) == (second.status_code, second.data) == (200, ACCEPTED)
        assert len(jobs.get(job).pending) == 1

    def test_is_accepted_when_the_job_was_canceled(self, client: FlaskClient, jobs: Any, darkroom: Any) -> None:
        job = jobs.submitting()
        darkroom.cancel(job.id)

        assert client.post(jobs.callback_path(job), json=RESULT).status_code == 200
        late = jobs.get(job)
        assert (late.status, late.attempts[0].outcome) == (Status.CANCELED, Outcome.SUCCEEDED)

    def test_is_accepted_from_an_earlier_attempt(self, client: FlaskClient, jobs: Any, darkroom: Any) -> None:
        job = jobs.submitting(on_unknown="charge_again")
        darkroom.advance(job.id, lambda job, now: transitions.outcome_lost(job, "worker-1", now))
        darkroom.advance(job.id, lambda job, now: transitions.claimed(job, "worker-2", job.wake_at))
        darkroom.advance(job.id, lambda job, now: transitions.submitting(job, "worker-2", now))

        assert client.post(jobs.callback_path(job, attempt=1), json=RESULT).status_code == 200
        assert jobs.get(job).status is Status.STORING

    def test_is_verified_by_every_key_of_the_rotation(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        assert client.post(jobs.callback_path(job, key="the-one-before"), json=RESULT).status_code == 200

    def test_costs_one_read_and_one_write(self, client: FlaskClient, jobs: Any, redis: Any) -> None:
        first, second = jobs.submitting(), jobs.submitting()
        client.post(jobs.callback_path(first), json=RESULT)
        before = redis.info("commandstats")

        client.post(jobs.callback_path(second), json=RESULT)

        after = redis.info("commandstats")
        calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
        assert calls["cmdstat_evalsha"] == 1
        # The script reads once more, inside Redis.
        assert calls.get("cmdstat_get", 0) + calls.get("cmdstat_mget", 0) == 2


class TestAWrongToken:
    @pytest.mark.parametrize("position", [0, 31, 32, 33, 34, 60, -1])
    def test_gets_one_answer_whatever_is_wrong(self, client: FlaskClient, jobs: Any, position: int) -> None:
        job = jobs.submitting()
        token = callback_url.sign("deepmode", job.id, 1, ["the-signing-secret"])

        answer = client.post(f"/webhooks/deepmode/{changed(token, position % len(token))}", json=RESULT)

        assert (answer.status_code, answer.json) == (403, FORBIDDEN)
        assert answer.content_type == "application/problem+json"
        assert jobs.get(job) == job

    @pytest.mark.parametrize("token", ["x", "%00", "a" * 5000, "..", "%F0%9F%92%A9", "1.2.3"])
    def test_may_look_like_anything(self, client: FlaskClient, token: str) -> None:
        assert client.post(f"/webhooks/deepmode/{token}", json=RESULT).status_code == 403

    def test_is_one_for_another_provider(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()
        foreign = jobs.callback_path(job).replace("/deepmode/", "/chainhub/")

        assert (client.post(foreign, json=RESULT).status_code, jobs.get(job)) == (403, job)

    def test_is_one_of_a_key_that_is_gone(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        assert client.post(jobs.callback_path(job, key="a-key-long-gone"), json=RESULT).status_code == 403

    def test_is_one_of_an_attempt_that_was_never_made(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        answer = client.post(jobs.callback_path(job, attempt=2), json=RESULT)

        assert (answer.status_code, answer.json, jobs.get(job)) == (403, FORBIDDEN, job)

    def test_is_refused_before_the_body_is_looked_at(self, client: FlaskClient) -> None:
        assert client.post("/webhooks/deepmode/wrong", data=b"x" * (MAX_BYTES + 1)).status_code == 403

    def test_costs_no_question_to_redis(self, settings: Settings, new_app: Any) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"})
            app = new_app(settings=away)

            assert app.test_client().post("/webhooks/deepmode/wrong", json=RESULT).status_code == 403


class TestARefusedCallback:
    def test_of_an_unknown_provider_is_not_found(self, client: FlaskClient, jobs: Any) -> None:
        path = jobs.callback_path(jobs.submitting()).replace("/deepmode/", "/nobody/")

        assert client.post(path, json=RESULT).status_code == 404

    def test_of_a_forgotten_job_is_gone(self, client: FlaskClient, jobs: Any, redis: Any) -> None:
        job = jobs.submitting()
        redis.flushdb()

        assert client.post(jobs.callback_path(job), json=RESULT).status_code == 410

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_by_another_method_is_not_allowed(self, client: FlaskClient, jobs: Any, method: str) -> None:
        answer = client.open(jobs.callback_path(jobs.submitting()), method=method)

        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert answer.json["title"] == "Method Not Allowed"

    @pytest.mark.parametrize("chunked", [False, True])
    def test_of_more_than_a_mebibyte_is_too_large(self, client: FlaskClient, jobs: Any, chunked: bool) -> None:
        job = jobs.submitting()

        answer = client.open(body_of(jobs.callback_path(job), b" " * (MAX_BYTES + 1), chunked=chunked))

        assert (answer.status_code, answer.content_type) == (413, "application/problem+json")
        assert jobs.get(job) == job

    @pytest.mark.parametrize("chunked", [False, True])
    def test_of_a_mebibyte_is_not(self, client: FlaskClient, jobs: Any, chunked: bool) -> None:
        job = jobs.submitting()
        body = b'{"images":[{"image_url":"https://example.com/a.png"}]}'.ljust(MAX_BYTES)

        assert client.open(body_of(jobs.callback_path(job), body, chunked=chunked)).status_code == 200

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"not json", b"{}", b"[]", b"null", b'"x"']
    )
    def test_of_another_shape_is_kept_on_the_timeline_and_changes_nothing_else(
        self, client: FlaskClient, jobs: Any, body: bytes
    ) -> None:
        job = jobs.submitting()

        answer = client.post(jobs.callback_path(job), data=body)

        after: Job = jobs.get(job)
        assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
        assert after.timeline[-1].what.startswith("callback of 1 not understood: ")
        assert (after.status, after.attempts, schedule.due_at(after)) == (
            job.status,
            job.attempts,
            schedule.due_at(job),
        )

    def test_is_kept_without_its_secrets(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        client.post(jobs.callback_path(job), data=b'{"what":"a-word","link":"' + IMAGE_URL.encode() + b'"}')

        kept = jobs.get(job).timeline[-1].what
        assert "a-word" in kept
        assert "a-secret-signature" not in kept

    def test_is_kept_by_its_beginning_only(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        client.post(jobs.callback_path(job), data=b"many words " * 10_000)

        assert MAX_QUOTED_BYTES - 50 <= len(jobs.get(job).timeline[-1].what) <= MAX_QUOTED_BYTES + 100

    def test_quotes_no_prompt_on_the_timeline(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        client.post(jobs.callback_path(job), data=b'{"said": "\\u0061 lake at dawn", "status": "a lake at"}')

        assert jobs.get(job).timeline[-1].what == 'callback of 1 not understood: {"said": "…", "status": "a lake at"}'

    def test_is_asked_to_come_again_when_neither_redis_nor_the_disk_takes_it(
        self, settings: Settings, jobs: Any, new_app: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.spool_dir.write_text("a file where the folder should be")
        path = jobs.callback_path(jobs.submitting())
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"})

            answer = new_app(settings=away).test_client().post(path, json=RESULT)

        assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        assert path.rpartition("/")[2] not in caplog.text


class TestAVendorsOwnSignature:
    @pytest.fixture
    def signing(self, new_app: Any, webhook_secret: str) -> FlaskClient:
        return new_app(environ={"CHAINHUB_WEBHOOK_SECRET": webhook_secret}).test_client()

    def test_is_wanted_once_a_secret_is_configured(self, signing: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting("chainhub")

        answer = signing.post(jobs.callback_path(job), json={"task_id": "t", "task_status": "processing"})

        assert (answer.status_code, answer.json, jobs.get(job)) == (403, FORBIDDEN, job)

    def test_is_taken_when_it_is_right(self, signing: FlaskClient, jobs: Any, signed_update: Any) -> None:
        job = jobs.submitting("chainhub")
        headers, body = signed_update({"task_id": "t", "task_status": "processing"})

        assert signing.post(jobs.callback_path(job), data=body, headers=headers).status_code == 200
        assert jobs.get(job).status is Status.RUNNING

    def test_is_not_wanted_without_a_secret(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting("chainhub")

        answer = client.post(jobs.callback_path(job), json={"task_id": "t", "task_status": "processing"})

        assert answer.status_code == 200

    def test_does_not_stand_in_for_the_token(self, signing: FlaskClient, signed_update: Any) -> None:
        headers, body = signed_update({"task_id": "t", "task_status": "processing"})

        assert signing.post("/webhooks/chainhub/wrong", data=body, headers=headers).status_code == 403


def test_a_failure_of_ours_is_a_problem_and_its_log_holds_no_token(
    new_app: Any, jobs: Any, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job = jobs.submitting()
    path = jobs.callback_path(job)
    redis.set(f"darkroom:job:{job.id}", b"1.1.x not a record")

    with caplog.at_level(logging.DEBUG):
        answer = new_app().test_client().post(path, json=RESULT)

    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "ValidationError" in caplog.text
    assert path.rpartition("/")[2] not in caplog.text


def body_of(path: str, body: bytes, *, chunked: bool) -> EnvironBuilder:
    """A POST as a server hands it over: a chunked one has no length, and the server ends its stream."""
    builder = EnvironBuilder(path, method="POST", input_stream=io.BytesIO(body))
    if chunked:
        builder.headers["Transfer-Encoding"] = "chunked"
        builder.environ_base = {"wsgi.input_terminated": True}
    else:
        builder.headers["Content-Length"] = str(len(body))
    return builder
