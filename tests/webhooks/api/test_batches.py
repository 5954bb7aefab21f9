"""Batches: many jobs in one request, all or none."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

NEW = {"operation": "deepmode.generate", "params": {"model_id": "m", "prompt": "a lake at dawn"}}


def jobs_of(number: int) -> dict[str, Any]:
    """The body of so many different jobs."""
    return {
        "jobs": [
            {**NEW, "params": {**NEW["params"], "prompt": f"lake {n}"}, "metadata": {"n": n}} for n in range(number)
        ]
    }


def test_all_jobs_are_enqueued_in_their_order(api: Any, redis: Any) -> None:
    answer = api.post("/v1/batches", json=jobs_of(30))

    ids = [job["id"] for job in answer.json["jobs"]]
    assert answer.status_code == 202
    assert [job["metadata"]["n"] for job in answer.json["jobs"]] == list(range(30))
    assert [api.get(f"/v1/jobs/{id}").json["status"] for id in ids] == ["queued"] * 30
    assert redis.llen("darkroom.deepmode") == 30
    assert redis.zcard("darkroom:lane:deepmode") == redis.zcard("darkroom:due") == 30


def test_a_thousand_jobs_are_listed_newest_first(api: Any) -> None:
    ids = [job["id"] for job in api.post("/v1/batches", json=jobs_of(1000)).json["jobs"]]

    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/v1/jobs?limit=100&cursor={cursor}").json
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]

    assert seen == ids[::-1]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"operation": "nobody.nothing", "params": {}}, "jobs.2.operation"),
        ({**NEW, "params": {"model_id": "m"}}, "jobs.2.params.prompt"),
        ({**NEW, "nonsense": 1}, "jobs.2.nonsense"),
        ({**NEW, "metadata": {"much": "x" * 20_000}}, "jobs.2.metadata"),
        ({**NEW, "webhook_url": "http://example.com/"}, "jobs.2.webhook_url"),
        (
            {"operation": "chainhub.ideogram-remix", "params": {"prompt": "p", "image_file": "bm8gcGljdHVyZQ=="}},
            "jobs.2.params.image_file",
        ),
    ],
)
def test_one_invalid_job_refuses_the_batch(
    api: Any, redis: Any, darkroom: Any, picture: bytes, wrong: Any, field: str
) -> None:
    image = {"prompt": "p", "image_file": base64.b64encode(picture).decode()}
    right = {"operation": "chainhub.ideogram-remix", "params": image}

    answer = api.post("/v1/batches", json={"jobs": [NEW, right, wrong]})

    assert (answer.status_code, [one["field"] for one in answer.json["errors"]]) == (422, [field])
    assert not redis.keys("darkroom:job:*")
    assert not redis.exists("darkroom.deepmode")
    assert not darkroom.storage.list()


def test_all_faults_of_all_jobs_are_listed_at_once(api: Any) -> None:
    wrong = [
        {**NEW, "deadline_seconds": 0},
        {**NEW, "params": {"model_id": "m"}, "webhook_url": "ftp://x"},
        NEW,
        {"operation": "chainhub.ideogram-remix", "params": {"prompt": "p", "image_file": "bm8gcGljdHVyZQ=="}},
        7,
    ]

    answer = api.post("/v1/batches", json={"jobs": wrong})

    assert [one["field"] for one in answer.json["errors"]] == [
        "jobs.0.deadline_seconds",
        "jobs.1.params.prompt",
        "jobs.1.webhook_url",
        "jobs.3.params.image_file",
        "jobs.4",
    ]
    assert answer.json["errors"][-1]["message"] == "should be an object"


@pytest.mark.parametrize("number", [0, 1001])
def test_a_batch_has_1_to_1000_jobs(api: Any, redis: Any, number: int) -> None:
    answer = api.post("/v1/batches", json=jobs_of(number))

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "jobs")
    assert not redis.keys("darkroom:job:*")


def test_the_same_idempotency_key_enqueues_the_batch_once(api: Any, redis: Any) -> None:
    first, second = (api.post("/v1/batches", {"Idempotency-Key": "order-17"}, json=jobs_of(5)) for _ in range(2))
    other = api.post("/v1/batches", {"Idempotency-Key": "order-17"}, json=jobs_of(6))
    single = api.post("/v1/jobs", {"Idempotency-Key": "order-17"}, json=NEW)

    assert (first.status_code, second.status_code) == (202, 200)
    assert [job["id"] for job in first.json["jobs"]] == [job["id"] for job in second.json["jobs"]]
    assert (other.status_code, single.status_code) == (422, 422)
    assert other.json["job_id"] == single.json["job_id"] == first.json["jobs"][0]["id"]
    assert len(redis.keys("darkroom:job:*")) == 5


def test_the_same_idempotency_key_at_the_same_moment_enqueues_the_batch_once(api: Any, redis: Any) -> None:
    with ThreadPoolExecutor(6) as clients:
        answers = list(
            clients.map(lambda _: api.post("/v1/batches", {"Idempotency-Key": "17"}, json=jobs_of(20)), range(6))
        )

    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [202]
    assert len({tuple(job["id"] for job in answer.json["jobs"]) for answer in answers}) == 1
    assert len(redis.keys("darkroom:job:*")) == redis.llen("darkroom.deepmode") == 20


def test_the_jobs_belong_to_the_owner_of_the_key(grant: Any) -> None:
    shop, other = (grant(name, "jobs:write", "jobs:read") for name in ("shop", "other"))
    shop.post("/v1/batches", json=jobs_of(3))

    assert len(shop.get("/v1/jobs").json["jobs"]) == 3
    assert other.get("/v1/jobs").json["jobs"] == []
