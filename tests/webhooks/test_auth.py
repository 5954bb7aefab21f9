"""API keys: their scopes, the jobs of other owners, revoked keys."""

from __future__ import annotations

import time
from typing import Any

import pytest

from jobs.state.api_keys import KeyStore
from webhooks.auth import CACHE_SECONDS, ApiKeys

NEW = {"operation": "deepmode.generate", "params": {"model_id": "m", "prompt": "a lake at dawn"}}
MISSING = "0" * 32


class TestScopes:
    def test_reading_does_not_allow_writing(self, grant: Any) -> None:
        reader = grant("shop", "jobs:read")

        assert reader.get("/v1/jobs").status_code == 200
        refused = reader.post("/v1/jobs", json=NEW)
        assert (refused.status_code, refused.json["required_scope"]) == (403, "jobs:write")
        assert refused.content_type == "application/problem+json"

    def test_writing_does_not_allow_reading(self, grant: Any) -> None:
        writer = grant("shop", "jobs:write")

        made = writer.post("/v1/jobs", json=NEW)
        assert made.status_code == 202
        assert writer.get(f"/v1/jobs/{made.json['id']}").status_code == 403

    @pytest.mark.parametrize("path", ["cancel", "retry", "redeliver"])
    def test_actions_need_the_scope_to_write(self, grant: Any, jobs: Any, path: str) -> None:
        job = jobs.queued(owner="shop")

        assert grant("shop", "jobs:read").post(f"/v1/jobs/{job.id}/{path}").status_code == 403
        assert jobs.get(job).status == "queued"


class TestJobsOfOtherOwners:
    def test_are_not_found_in_the_same_words_as_missing_jobs(self, grant: Any) -> None:
        made = grant("shop", "jobs:write").post("/v1/jobs", json=NEW).json["id"]
        other = grant("other", "jobs:read", "jobs:write")

        for method, path in [
            ("GET", ""),
            ("GET", "/events"),
            ("POST", "/cancel"),
            ("POST", "/retry"),
            ("POST", "/redeliver"),
        ]:
            foreign = other.open(method, f"/v1/jobs/{made}{path}")
            missing = other.open(method, f"/v1/jobs/{MISSING}{path}")
            assert (foreign.status_code, missing.status_code) == (404, 404)
            assert foreign.text.replace(made, MISSING) == missing.text

    def test_are_not_listed(self, grant: Any, jobs: Any) -> None:
        jobs.queued()
        shop, other = (grant(name, "jobs:read", "jobs:write") for name in ("shop", "other"))
        made = [shop.post("/v1/jobs", json=NEW).json["id"] for _ in range(3)]

        assert {job["id"] for job in shop.get("/v1/jobs?status=queued").json["jobs"]} == set(made)
        assert shop.get("/v1/jobs?status=failed").json["jobs"] == []
        assert other.get("/v1/jobs").json["jobs"] == []

    def test_are_visible_to_an_admin(self, grant: Any, api: Any) -> None:
        made = grant("shop", "jobs:write").post("/v1/jobs", json=NEW).json["id"]

        assert grant("boss", "admin").get(f"/v1/jobs/{made}").status_code == 200
        assert api.get("/v1/jobs").json["jobs"][0]["id"] == made

    def test_are_shared_by_the_keys_of_one_name(self, grant: Any) -> None:
        made = grant("shop", "jobs:write").post("/v1/jobs", json=NEW).json["id"]

        assert grant("shop", "jobs:read").get(f"/v1/jobs/{made}").status_code == 200

    def test_have_their_own_idempotency_keys(self, grant: Any) -> None:
        answers = [grant(name, "jobs:write").post("/v1/jobs", {"Idempotency-Key": "17"}, json=NEW) for name in "aab"]

        assert [answer.status_code for answer in answers] == [202, 200, 202]


class TestAKey:
    def test_is_refused_within_seconds_after_it_was_revoked(self, grant: Any) -> None:
        client = grant("shop")
        assert client.get("/v1/jobs").status_code == 200

        grant.store.revoke("shop")
        time.sleep(CACHE_SECONDS + 0.1)

        assert client.get("/v1/jobs").status_code == 401

    @pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key[:-1] + "~", lambda key: key.upper()])
    def test_with_a_changed_character_is_refused(self, grant: Any, change: Any) -> None:
        client = grant("shop")

        assert type(client)(client.client, change(client.key)).get("/v1/jobs").status_code == 401

    def test_is_cached(self, redis_url: str, redis: Any) -> None:
        store = KeyStore.open(redis_url)
        _, secret = store.create("shop", ["admin"])
        keys = ApiKeys([], store)
        assert keys.caller(f"Bearer {secret}")
        redis.config_resetstat()

        for _ in range(200):
            assert keys.caller(f"Bearer {secret}")
            assert keys.caller("Bearer drk_0123456789ab_" + "x" * 43) is None

        assert redis.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"] <= 3

    def test_of_the_environment_works_while_redis_is_away(self, free_port: int) -> None:
        keys = ApiKeys(["one-key"], KeyStore.open(f"redis://127.0.0.1:{free_port}/0"))

        found = keys.caller("Bearer one-key")

        assert found is not None
        assert found.is_admin
