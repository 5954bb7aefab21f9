"""What the receiver answers to callbacks, and what happens to the job."""

from __future__ import annotations

import io
import logging
import shlex
import socket
from collections.abc import Callable
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
    position %= len(token)
    other = "0" if token[position] != "0" else "1"
    return token[:position] + other + token[position + 1 :]


class TestAValidCallback:
    def test_is_applied_before_it_is_answered(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        answer = client.post(jobs.callback_path(job), json=RESULT)

        assert answer.status_code == 200
        stored = jobs.get(job)
        assert stored.status is Status.STORING
        assert stored.pending[0].source.url == IMAGE_URL

    def test_may_arrive_before_the_answer_to_the_submit(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()
        client.post(jobs.callback_path(job), json=RESULT)

        assert jobs.reported(job, Running()).status is Status.STORING

    def test_is_kept_without_the_prompt_that_it_quotes(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting("chainhub")
        words = f"refused: '{job.params['prompt']}' is not allowed"
        client.post(jobs.callback_path(job), json={"task_id": "t", "task_status": "failed", "task_status_msg": words})

        assert jobs.get(job).error.message.endswith("refused: '…' is not allowed")

    def test_may_be_repeated(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()
        first, second = (client.post(jobs.callback_path(job), json=RESULT) for _ in range(2))

        assert (first.status_code, first.data) == (second.status_code, second.data) == (200, ACCEPTED)
        assert len(jobs.get(job).pending) == 1

    def test_is_accepted_after_a_cancellation(self, client: FlaskClient, jobs: Any, darkroom: Any) -> None:
        job = jobs.submitting()
        darkroom.cancel(job.id)

        assert client.post(jobs.callback_path(job), json=RESULT).status_code == 200
        late = jobs.get(job)
        assert (late.status, late.attempts[0].outcome) == (Status.CANCELED, Outcome.SUCCEEDED)

    def test_is_accepted_for_an_earlier_attempt(self, client: FlaskClient, jobs: Any, darkroom: Any) -> None:
        job = jobs.submitting(on_unknown="charge_again")
        darkroom.advance(job.id, lambda job, now: transitions.outcome_lost(job, "worker-1", now))
        darkroom.advance(job.id, lambda job, now: transitions.claimed(job, "worker-2", job.wake_at))
        darkroom.advance(job.id, lambda job, now: transitions.submitting(job, "worker-2", now))

        assert client.post(jobs.callback_path(job, attempt=1), json=RESULT).status_code == 200
        assert jobs.get(job).status is Status.STORING

    def test_may_be_signed_with_any_key_of_the_rotation(self, client: FlaskClient, jobs: Any) -> None:
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


class TestAnInvalidToken:
    @pytest.mark.parametrize("position", [0, 31, 32, 33, 34, 60, -1])
    def test_gets_the_same_answer_whatever_is_wrong(self, client: FlaskClient, jobs: Any, position: int) -> None:
        job = jobs.submitting()
        token = callback_url.sign("deepmode", job.id, 1, ["the-signing-secret"])

        answer = client.post(f"/webhooks/deepmode/{changed(token, position)}", json=RESULT)

        assert (answer.status_code, answer.json) == (403, FORBIDDEN)
        assert answer.content_type == "application/problem+json"
        assert jobs.get(job) == job

    @pytest.mark.parametrize("token", ["x", "%00", "a" * 5000, "..", "%F0%9F%92%A9", "1.2.3"])
    def test_may_have_any_form(self, client: FlaskClient, token: str) -> None:
        assert client.post(f"/webhooks/deepmode/{token}", json=RESULT).status_code == 403

    def test_of_another_provider_is_refused(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()
        foreign = jobs.callback_path(job).replace("/deepmode/", "/chainhub/")

        assert (client.post(foreign, json=RESULT).status_code, jobs.get(job)) == (403, job)

    def test_of_a_removed_key_is_refused(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        assert client.post(jobs.callback_path(job, key="a-key-long-gone"), json=RESULT).status_code == 403

    def test_of_an_attempt_that_does_not_exist_is_refused(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        answer = client.post(jobs.callback_path(job, attempt=2), json=RESULT)

        assert (answer.status_code, answer.json, jobs.get(job)) == (403, FORBIDDEN, job)

    def test_is_refused_before_the_body_is_read(self, client: FlaskClient) -> None:
        assert client.post("/webhooks/deepmode/wrong", data=b"x" * (MAX_BYTES + 1)).status_code == 403

    def test_costs_no_connection_to_redis(self, settings: Settings, new_app: Any, jobs: Any) -> None:
        good = jobs.callback_path(jobs.submitting())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
            client = new_app(settings=settings.model_copy(update={"redis_url": url})).test_client()

            for path in ("/webhooks/deepmode/wrong", changed(good, -1), changed(good, len("/webhooks/deepmode/"))):
                assert client.post(path, json=RESULT).status_code == 403

            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                listening.accept()


class TestARefusedCallback:
    def test_of_an_unknown_provider_is_not_found(self, client: FlaskClient, jobs: Any) -> None:
        path = jobs.callback_path(jobs.submitting()).replace("/deepmode/", "/nobody/")

        assert client.post(path, json=RESULT).status_code == 404

    def test_of_a_deleted_job_is_gone(self, client: FlaskClient, jobs: Any, redis: Any) -> None:
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
    def test_of_exactly_a_mebibyte_is_accepted(self, client: FlaskClient, jobs: Any, chunked: bool) -> None:
        job = jobs.submitting()
        body = b'{"images":[{"image_url":"https://example.com/a.png"}]}'.ljust(MAX_BYTES)

        assert client.open(body_of(jobs.callback_path(job), body, chunked=chunked)).status_code == 200

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"not json", b"{}", b"[]", b"null", b'"x"']
    )
    def test_that_is_not_understood_is_quoted_on_the_timeline_and_changes_nothing_else(
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

    def test_is_quoted_without_its_secrets(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        client.post(jobs.callback_path(job), data=b'{"what":"a-word","link":"' + IMAGE_URL.encode() + b'"}')

        kept = jobs.get(job).timeline[-1].what
        assert "a-word" in kept
        assert "a-secret-signature" not in kept

    def test_is_quoted_by_its_beginning_only(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        client.post(jobs.callback_path(job), data=b"many words " * 10_000)

        assert MAX_QUOTED_BYTES - 50 <= len(jobs.get(job).timeline[-1].what) <= MAX_QUOTED_BYTES + 100

    def test_is_quoted_without_prompts(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting()

        client.post(jobs.callback_path(job), data=b'{"said": "\\u0061 lake at dawn", "status": "a lake at"}')

        assert jobs.get(job).timeline[-1].what == 'callback of 1 not understood: {"said": "…", "status": "a lake at"}'

    def test_that_can_be_stored_nowhere_should_be_sent_again(
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


class TestAProvidersOwnSignature:
    @pytest.fixture
    def signing(self, new_app: Any, webhook_secret: str) -> FlaskClient:
        return new_app(environ={"CHAINHUB_WEBHOOK_SECRET": webhook_secret}).test_client()

    def test_is_required_when_a_secret_is_configured(self, signing: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting("chainhub")

        answer = signing.post(jobs.callback_path(job), json={"task_id": "t", "task_status": "processing"})

        assert (answer.status_code, answer.json, jobs.get(job)) == (403, FORBIDDEN, job)

    def test_is_verified(self, signing: FlaskClient, jobs: Any, signed_update: Any) -> None:
        job = jobs.submitting("chainhub")
        headers, body = signed_update({"task_id": "t", "task_status": "processing"})

        assert signing.post(jobs.callback_path(job), data=body, headers=headers).status_code == 200
        assert jobs.get(job).status is Status.RUNNING

    def test_is_not_required_without_a_secret(self, client: FlaskClient, jobs: Any) -> None:
        job = jobs.submitting("chainhub")

        answer = client.post(jobs.callback_path(job), json={"task_id": "t", "task_status": "processing"})

        assert answer.status_code == 200

    def test_does_not_replace_the_token(self, signing: FlaskClient, signed_update: Any) -> None:
        headers, body = signed_update({"task_id": "t", "task_status": "processing"})

        assert signing.post("/webhooks/chainhub/wrong", data=body, headers=headers).status_code == 403


def test_a_failure_is_a_problem_and_its_log_contains_no_token(
    new_app: Any, jobs: Any, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job = jobs.submitting()
    path = jobs.callback_path(job)
    record = redis.get(f"darkroom:job:{job.id}")
    redis.set(f"darkroom:job:{job.id}", record.replace(job.operation.encode(), b"deepmode.unheard-of"))

    with caplog.at_level(logging.DEBUG):
        answer = new_app().test_client().post(path, json=RESULT)

    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "failed: InvalidRequest" in caplog.text
    assert path.rpartition("/")[2] not in caplog.text


class TestTheLog:
    """One line for each callback."""

    @pytest.fixture
    def logged(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, str]]]:
        """The fields of each line, and its message; how long the callback took is left out."""
        caplog.set_level(logging.INFO, "darkroom")

        def lines() -> list[dict[str, str]]:
            found = []
            for line in caplog.messages:
                if line.startswith("callback"):
                    first, second, *fields = shlex.split(line)
                    found.append({"message": f"{first} {second}", **dict(field.split("=", 1) for field in fields)})
                    assert float(found[-1].pop("duration_seconds")) >= 0
            return found

        return lines

    def test_has_a_line_for_each_accepted_callback(self, client: FlaskClient, jobs: Any, logged: Any) -> None:
        job = jobs.submitting("chainhub")
        for _ in range(2):
            client.post(jobs.callback_path(job), json={"task_id": "t", "task_status": "processing"})

        accepted = {"message": "callback accepted", "job": job.id, "attempt": "1", "provider": "chainhub"}
        assert logged() == [
            {**accepted, "operation": job.operation, "status": "running", "http_status": "200", "outcome": outcome}
            for outcome in ("applied", "unchanged")
        ]

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("/webhooks/nobody/token", {"reason": "unknown provider", "http_status": "404"}),
            ("/webhooks/deepmode/token", {"provider": "deepmode", "reason": "invalid token", "http_status": "403"}),
            ("/webhooks/deepmode", {"reason": "wrong path", "http_status": "404"}),
        ],
    )
    def test_has_a_line_for_each_refused_callback(
        self, client: FlaskClient, logged: Any, path: str, fields: dict[str, str]
    ) -> None:
        client.post(path, json=RESULT)

        assert logged() == [{"message": "callback refused", "outcome": "refused", **fields}]

    def test_has_the_job_of_a_callback_that_is_not_understood_and_never_its_token(
        self, client: FlaskClient, jobs: Any, logged: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        job = jobs.submitting()
        path = jobs.callback_path(job)

        client.post(path, data=b"{}")

        [line] = logged()
        assert (line["job"], line["reason"], line["http_status"]) == (job.id, "not understood", "422")
        assert path.rpartition(".")[2] not in caplog.text


def body_of(path: str, body: bytes, *, chunked: bool) -> EnvironBuilder:
    """A POST as a server passes it on: a chunked one has no length, and the server ends its stream."""
    builder = EnvironBuilder(path, method="POST", input_stream=io.BytesIO(body))
    if chunked:
        builder.headers["Transfer-Encoding"] = "chunked"
        builder.environ_base = {"wsgi.input_terminated": True}
    else:
        builder.headers["Content-Length"] = str(len(body))
    return builder
