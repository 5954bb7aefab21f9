"""What the body of a new job may contain, and its idempotency key."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

NEW = {"operation": "deepmode.generate", "params": {"model_id": "m", "prompt": "a lake at dawn"}}


class TestANewJob:
    def test_is_accepted_with_its_url(self, api: Any) -> None:
        answer = api.post("/v1/jobs", json={**NEW, "metadata": {"user": "42"}})

        assert (answer.status_code, answer.json["status"]) == (202, "queued")
        followed = api.get(answer.headers["Location"])
        assert followed.json["id"] == answer.json["id"]
        assert followed.json["metadata"] == {"user": "42"}

    def test_may_have_every_option(self, api: Any) -> None:
        options = {"deadline_seconds": 60, "on_unknown": "charge_again", "keep_late": True}

        enqueued = api.post("/v1/jobs", json={**NEW, **options}).json

        assert (enqueued["on_unknown"], enqueued["keep_late"]) == ("charge_again", True)

    def test_is_enqueued_once_for_an_idempotency_key(self, api: Any) -> None:
        first, second = (api.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=NEW) for _ in range(2))
        quoted = api.post("/v1/jobs", {"Idempotency-Key": '"order-17"'}, json=NEW)

        assert [answer.status_code for answer in (first, second, quoted)] == [202, 200, 200]
        assert len({answer.json["id"] for answer in (first, second, quoted)}) == 1

    def test_is_refused_when_the_idempotency_key_was_used_for_another(self, api: Any) -> None:
        first = api.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=NEW)
        other = {**NEW, "params": {**NEW["params"], "prompt": "a hill"}}

        answer = api.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=other)

        assert (answer.status_code, answer.json["job_id"]) == (422, first.json["id"])

    def test_shares_its_idempotency_key_with_no_other_api_key(self, api: Any, client: FlaskClient) -> None:
        another = type(api)(client, "another-api-key")

        mine, theirs = (one.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=NEW) for one in (api, another))

        assert (mine.status_code, theirs.status_code) == (202, 202)
        assert mine.json["id"] != theirs.json["id"]

    def test_may_contain_its_images_as_base64(self, api: Any, darkroom: Any, picture: bytes) -> None:
        params = {"prompt": "a lake", "image_file": base64.b64encode(picture).decode()}

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
    def test_with_an_invalid_field_is_refused_by_its_name(self, api: Any, redis: Any, change: Any, field: str) -> None:
        answer = api.post("/v1/jobs", json={**NEW, **change})

        assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
        assert [error["field"] for error in answer.json["errors"]] == [field]
        assert not redis.keys("darkroom:job:*")

    @pytest.mark.parametrize("content", ["bm8gcGljdHVyZQ==", "not base64", "http://example.com/a.png"])
    def test_whose_image_is_invalid_is_refused(self, api: Any, content: str) -> None:
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
    def test_must_be_json(self, api: Any, body: bytes, content_type: str, status: int) -> None:
        answer = api.post("/v1/jobs", data=body, content_type=content_type)

        assert (answer.status_code, answer.content_type) == (status, "application/problem+json")


class TestOptions:
    def test_say_where_webhooks_are_sent(self, api: Any, darkroom: Any) -> None:
        options = {"webhook_url": "https://app.example.com/hook?token=1", "webhook_events": ["failed", "running"]}

        enqueued = api.post("/v1/jobs", json={**NEW, **options})

        assert (enqueued.status_code, enqueued.json["webhook_events"]) == (202, ["failed", "running"])
        assert darkroom.get(enqueued.json["id"]).webhook_url == options["webhook_url"]

    @pytest.mark.parametrize(
        ("option", "field"),
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
    def test_that_are_invalid_are_named(self, api: Any, option: Any, field: str) -> None:
        answer = api.post("/v1/jobs", json={**NEW, **option})

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
    def test_that_is_malformed_is_refused(self, api: Any, redis: Any, key: str) -> None:
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
    def test_belongs_to_the_whole_body(self, api: Any, change: Any) -> None:
        first = api.post("/v1/jobs", {"Idempotency-Key": "17"}, json=NEW)

        answer = api.post("/v1/jobs", {"Idempotency-Key": "17"}, json={**NEW, **change})

        assert (answer.status_code, answer.json["job_id"]) == (422, first.json["id"])

    def test_does_not_depend_on_how_the_body_is_written(self, api: Any) -> None:
        bodies = (
            '{"operation":"deepmode.generate","params":{"model_id":"m","prompt":"p"}}',
            '{ "params": {"prompt": "p", "model_id": "m", "num_images": 1}, "operation": "deepmode.generate" }',
        )

        answers = [
            api.post("/v1/jobs", {"Idempotency-Key": "17"}, data=body, content_type="application/json")
            for body in bodies
        ]

        assert [answer.status_code for answer in answers] == [202, 200]

    def test_enqueues_one_job_at_the_same_moment(self, api: Any, redis: Any) -> None:
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

    def test_of_an_action_is_short(self, api: Any, jobs: Any) -> None:
        answer = api.post(f"/v1/jobs/{jobs.queued().id}/retry", data=b" " * 70_000, content_type="application/json")

        assert answer.status_code == 413

    def test_lists_every_fault_at_once(self, api: Any) -> None:
        params = {"model_id": "m", "num_images": 9, "promt": "a lake"}
        wrong = {"deadline_seconds": 0, "notify": True, "webhook_url": "ftp://x", "metadata": {"much": "x" * 20_000}}
        body = {"operation": "deepmode.generate", "params": params, "webhook_events": ["faild"], **wrong}

        answer = api.post("/v1/jobs", json=body)

        errors = {error["field"]: error["message"] for error in answer.json["errors"]}
        assert set(errors) == {*wrong, "webhook_events.0", "params.num_images", "params.prompt", "params.promt"}
        assert 'did you mean "prompt"?' in errors["params.promt"]
        assert 'did you mean "failed"?' in errors["webhook_events.0"]

    def test_of_an_unknown_operation_has_its_options_checked(self, api: Any) -> None:
        answer = api.post("/v1/jobs", json={"operation": "deepmode.genrate", "params": {}, "deadline_seconds": 0})

        assert [error["field"] for error in answer.json["errors"]] == ["operation", "deadline_seconds"]
        assert 'did you mean "deepmode.generate"?' in answer.json["errors"][0]["message"]

    def test_never_repeats_a_prompt_or_an_image(self, api: Any) -> None:
        params = {"model_id": "m", "prompt": ["a secret wish"], "image_urls": ["http://a secret place/"]}

        answer = api.post("/v1/jobs", json={"operation": "deepmode.generate", "params": params})

        assert answer.status_code == 422
        assert "secret" not in answer.text
