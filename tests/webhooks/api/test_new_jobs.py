"""Retry, redeliver, options of a new job, idempotency keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobs.report import Charged, Code, Failed

NEW = {"operation": "deepmode.generate", "params": {"model_id": "m", "prompt": "a lake at dawn"}}


class TestRetry:
    def test_tries_a_job_again_that_cost_nothing(self, api: Any, jobs: Any) -> None:
        job = jobs.queued()
        api.post(f"/v1/jobs/{job.id}/cancel")

        answer = api.post(f"/v1/jobs/{job.id}/retry")

        assert (answer.status_code, answer.json["status"]) == (202, "queued")

    def test_asks_before_a_second_charge(self, api: Any, jobs: Any) -> None:
        job = jobs.submitting()
        jobs.reported(job, Failed(Code.MODERATED, "no", charged=Charged.YES))

        refused = api.post(f"/v1/jobs/{job.id}/retry", json={})
        accepted = api.post(f"/v1/jobs/{job.id}/retry", json={"may_charge_again": True})

        assert (refused.status_code, refused.json["reason"]) == (409, "charge_possible")
        assert (accepted.status_code, accepted.json["status"]) == (202, "queued")

    def test_is_refused_for_a_job_that_goes_on(self, api: Any, jobs: Any) -> None:
        answer = api.post(f"/v1/jobs/{jobs.queued().id}/retry")

        assert (answer.status_code, answer.json["reason"], answer.json["job_status"]) == (409, "not_final", "queued")

    @pytest.mark.parametrize("body", [{"may_charge_again": "yes"}, {"nonsense": 1}, [], "x"])
    def test_is_refused_when_it_is_not_understood(self, api: Any, jobs: Any, body: Any) -> None:
        assert api.post(f"/v1/jobs/{jobs.queued().id}/retry", json=body).status_code == 422


class TestRedeliver:
    def test_delivers_anew(self, api: Any, jobs: Any) -> None:
        job = jobs.queued(webhook_url="https://app.example.com/hook?token=a-secret-token")
        shown = api.post(f"/v1/jobs/{job.id}/cancel").json

        answer = api.post(f"/v1/jobs/{job.id}/redeliver", json={"delivery": shown["deliveries"][0]["id"]})

        assert (answer.status_code, answer.json["deliveries"][0]["event"]) == (202, "canceled")
        assert answer.json["webhook_url"] == "https://app.example.com/hook"
        assert "a-secret-token" not in answer.text

    @pytest.mark.parametrize("body", [None, {"delivery": "msg_other"}])
    def test_is_refused_where_there_is_nothing(self, api: Any, jobs: Any, body: Any) -> None:
        answer = api.post(f"/v1/jobs/{jobs.queued().id}/redeliver", json=body)

        assert (answer.status_code, answer.json["reason"]) == (409, "no_such_delivery")


class TestOptions:
    def test_say_where_the_job_tells_of_itself(self, api: Any, darkroom: Any) -> None:
        wish = {"webhook_url": "https://app.example.com/hook?token=1", "webhook_events": ["failed", "running"]}

        made = api.post("/v1/jobs", json={**NEW, **wish})

        assert (made.status_code, made.json["webhook_events"]) == (202, ["failed", "running"])
        assert darkroom.get(made.json["id"]).webhook_url == wish["webhook_url"]

    @pytest.mark.parametrize(
        ("wish", "field"),
        [
            ({"webhook_url": "https://[::1"}, "webhook_url"),
            ({"webhook_url": "ftp://example.com/"}, "webhook_url"),
            ({"webhook_url": "http://example.com/"}, "webhook_url"),
            ({"webhook_url": "https://example.com:99999/"}, "webhook_url"),
            ({"webhook_url": "https://user:password@example.com/"}, "webhook_url"),
            ({"webhook_events": ["done"]}, "webhook_events.0"),
            ({"deadline_seconds": "60"}, "deadline_seconds"),
            ({"deadline_seconds": 1e9}, "deadline_seconds"),
        ],
    )
    def test_that_are_wrong_are_named(self, api: Any, wish: Any, field: str) -> None:
        answer = api.post("/v1/jobs", json={**NEW, **wish})

        assert (answer.status_code, [one["field"] for one in answer.json["errors"]]) == (422, [field])
        assert "password" not in answer.text


class TestAnIdempotencyKey:
    @pytest.mark.parametrize(
        ("one", "other"), [("abc", '"abc"'), ('"a b"', "a b"), (r'"a\"b"', r'"a\"b"'), ('"x\\\\y"', '"x\\\\y"')]
    )
    def test_is_the_same_bare_and_quoted(self, api: Any, one: str, other: str) -> None:
        answers = [api.post("/v1/jobs", {"Idempotency-Key": key}, json=NEW) for key in (one, other)]

        assert [answer.status_code for answer in answers] == [202, 200]

    @pytest.mark.parametrize("key", ["", '""', '"', '"a', '"a"b"', "x" * 256, "\xff", r'"a\b"'])
    def test_that_is_none_is_refused(self, api: Any, redis: Any, key: str) -> None:
        answer = api.post("/v1/jobs", {"Idempotency-Key": key}, json=NEW)

        assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "Idempotency-Key")
        assert not redis.keys("darkroom:job:*")

    @pytest.mark.parametrize(
        "change",
        [
            {"metadata": {"user": "43"}},
            {"deadline_seconds": 61},
            {"keep_late": True},
            {"webhook_url": "https://b.example/"},
        ],
    )
    def test_stands_for_the_whole_body(self, api: Any, change: Any) -> None:
        first = api.post("/v1/jobs", {"Idempotency-Key": "17"}, json=NEW)

        answer = api.post("/v1/jobs", {"Idempotency-Key": "17"}, json={**NEW, **change})

        assert (answer.status_code, answer.json["job_id"]) == (422, first.json["id"])

    def test_does_not_stand_for_how_the_body_is_written(self, api: Any) -> None:
        bodies = (
            '{"operation":"deepmode.generate","params":{"model_id":"m","prompt":"p"}}',
            '{ "params": {"prompt": "p", "model_id": "m", "num_images": 1}, "operation": "deepmode.generate" }',
        )

        answers = [
            api.post("/v1/jobs", {"Idempotency-Key": "17"}, data=body, content_type="application/json")
            for body in bodies
        ]

        assert [answer.status_code for answer in answers] == [202, 200]

    def test_makes_one_job_at_the_same_moment(self, api: Any, redis: Any) -> None:
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: api.post("/v1/jobs", {"Idempotency-Key": "17"}, json=NEW), range(16)))

        assert sorted(answer.status_code for answer in answers) == [200] * 15 + [202]
        assert len({answer.json["id"] for answer in answers}) == 1
        assert len(redis.keys("darkroom:job:*")) == 1


class TestABody:
    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 100_000,
            b'{"operation":"deepmode.generate","params":{"model_id":"m","prompt":"p"},"metadata":'
            + b'{"a":' * 40
            + b"1"
            + b"}" * 41,
            b'{"operation":"deepmode.generate","params":{},"metadata":{"a":NaN}}',
            b'{"operation":"deepmode.generate","params":{},"metadata":{"a":1e999}}',
            b'{"a":' + b"9" * 5000 + b"}",
            b"[" + b"0," * 400_000 + b"0]",
            b"\xff\xfe",
            b'"\xed\xa0\x80"',
        ],
        ids=[
            "deep",
            "metadata too deep",
            "NaN",
            "infinite",
            "a long number",
            "many values",
            "not UTF-8",
            "a surrogate",
        ],
    )
    def test_that_is_hostile_is_refused(self, api: Any, body: bytes) -> None:
        answer = api.post("/v1/jobs", data=body, content_type="application/json")

        assert (answer.status_code, answer.content_type) == (400, "application/problem+json")

    def test_with_half_a_surrogate_is_refused(self, api: Any) -> None:
        for body in (r'{"metadata":{"a":"\ud800"}}', r'{"metadata":{"\ud800":1}}'):
            whole = body[:-1] + ',"operation":"deepmode.generate","params":{"model_id":"m","prompt":"p"}}'
            answer = api.post("/v1/jobs", data=whole, content_type="application/json")
            assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "metadata")

    def test_of_an_order_is_short(self, api: Any, jobs: Any) -> None:
        answer = api.post(f"/v1/jobs/{jobs.queued().id}/retry", data=b" " * 70_000, content_type="application/json")

        assert answer.status_code == 413
