"""What strangers may send: any token, any body. `FUZZ_EXAMPLES` asks for more than the gate does."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import callback_url
from jobs.errors import InvalidToken

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1000"))
pure = settings(max_examples=EXAMPLES, deadline=None)
served = settings(
    max_examples=max(EXAMPLES // 4, 1), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

KEYS = ("the-signing-secret", "the-one-before")
JOB = "0123456789abcdef0123456789abcdef"
TOKEN = callback_url.sign("deepmode", JOB, 1, KEYS)
PROBLEM = "application/problem+json"

printable = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#%")
fields = st.sampled_from(
    ["images", "image_url", "id", "error", "data", "status", "task_id", "state", "result", "url", "job", "message"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | fields, inner, max_size=6),
    max_leaves=20,
)


@st.composite
def damaged(draw: Any) -> str:
    """A good token with a few characters changed, taken out or put in."""
    token = list(TOKEN)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(token) - 1))
        token[at : at + draw(st.integers(0, 2))] = draw(st.text(printable, max_size=2))
    return "".join(token)


class TestTokens:
    @pure
    @given(st.one_of(damaged(), st.text(printable, max_size=120), st.text(max_size=60)))
    def test_only_what_was_signed_is_taken(self, token: str) -> None:
        if token == TOKEN:
            return
        with pytest.raises(InvalidToken):
            callback_url.verify("deepmode", token, KEYS)

    @pure
    @given(st.sampled_from(["chainhub", "phota", "aimlapi", ""]), st.integers(1, 9999), st.text(max_size=20))
    def test_one_is_for_one_provider_one_attempt_and_our_keys(self, provider: str, attempt: int, key: str) -> None:
        for other in (
            callback_url.sign(provider, JOB, 1, KEYS),
            f"{JOB}.{attempt + 1}.{TOKEN.rpartition('.')[2]}",
            callback_url.sign("deepmode", JOB, attempt, [key]),
        ):
            with pytest.raises(InvalidToken):
                callback_url.verify("deepmode", other, KEYS)

    @pure
    @given(st.uuids(), st.integers(1, 9999), st.permutations(KEYS))
    def test_one_of_ours_names_its_job_and_attempt_whichever_key_signed(self, id: Any, number: int, keys: Any) -> None:
        token = callback_url.sign("deepmode", id.hex, number, keys)

        assert callback_url.verify("deepmode", token, KEYS) == (id.hex, number)

    @served
    @given(damaged() | st.text(printable, min_size=1, max_size=120))
    def test_every_wrong_one_has_the_same_answer(self, client: FlaskClient, token: str) -> None:
        if token == TOKEN or token in (".", ".."):
            return
        answer = client.post(f"/webhooks/deepmode/{token}", data=b"{}")

        assert (answer.status_code, answer.content_type) == (403, PROBLEM)
        assert answer.json["detail"] == "The token or the signature is not ours."

    def test_a_wrong_one_is_told_neither_by_time_nor_by_round_trips(self, client: FlaskClient, redis: Any) -> None:
        wrong = {
            "another job's": callback_url.sign("deepmode", "f" * 32, 1, ["another"]),
            "a signature that is almost right": TOKEN[:-1] + ("A" if TOKEN[-1] != "A" else "B"),
            "a signature that is all wrong": f"{JOB}.1.{'A' * 43}",
            "no token at all": "x",
        }
        took: dict[str, list[float]] = {name: [] for name in wrong}
        before = redis.info("stats")["total_commands_processed"]
        for _ in range(200):
            for name, token in wrong.items():
                started = time.perf_counter()
                client.post(f"/webhooks/deepmode/{token}", data=b"{}")
                took[name].append(time.perf_counter() - started)

        assert redis.info("stats")["total_commands_processed"] - before <= 2
        fastest = {name: min(times) for name, times in took.items()}
        assert max(fastest.values()) < 2 * min(fastest.values()), fastest


class TestCallbackBodies:
    @served
    @given(st.sampled_from(["deepmode", "chainhub"]), st.binary(max_size=300) | values.map(json.dumps).map(str.encode))
    def test_none_breaks_the_receiver_or_its_job(
        self, client: FlaskClient, jobs: Any, provider: str, body: bytes
    ) -> None:
        job = jobs.submitting(provider)

        answer = client.post(jobs.callback_path(job), data=body)

        assert answer.status_code in (200, 422)
        assert answer.content_type == ("application/json" if answer.status_code == 200 else PROBLEM)
        assert jobs.get(job).status in ("submitting", "queued", "running", "storing", "failed")
        assert client.post(jobs.callback_path(job), data=body).status_code == answer.status_code
