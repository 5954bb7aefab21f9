"""Tokens: only ours are taken, and a wrong one learns nothing, not by time either."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from jobs import callback_url
from jobs.errors import InvalidToken

KEYS = ("the-signing-secret", "the-one-before")
JOB = "0123456789abcdef0123456789abcdef"
TOKEN = callback_url.sign("deepmode", JOB, 1, KEYS)

printable = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#%")


@st.composite
def damaged(draw: Any) -> str:
    """A good token with a few characters changed, taken out or put in."""
    token = list(TOKEN)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(token) - 1))
        token[at : at + draw(st.integers(0, 2))] = draw(st.text(printable, max_size=2))
    return "".join(token)


@given(st.one_of(damaged(), st.text(printable, max_size=120), st.text(max_size=60)))
def test_only_what_was_signed_is_taken(token: str) -> None:
    if token == TOKEN:
        return
    with pytest.raises(InvalidToken):
        callback_url.verify("deepmode", token, KEYS)


@given(st.sampled_from(["chainhub", "phota", "aimlapi", ""]), st.integers(1, 9999), st.text(max_size=20))
def test_one_is_for_one_provider_one_attempt_and_our_keys(provider: str, attempt: int, key: str) -> None:
    for other in (
        callback_url.sign(provider, JOB, 1, KEYS),
        f"{JOB}.{attempt + 1}.{TOKEN.rpartition('.')[2]}",
        callback_url.sign("deepmode", JOB, attempt, [key]),
    ):
        with pytest.raises(InvalidToken):
            callback_url.verify("deepmode", other, KEYS)


@given(st.uuids(), st.integers(1, 9999), st.permutations(KEYS))
def test_one_of_ours_names_its_job_and_attempt_whichever_key_signed(id: Any, number: int, keys: Any) -> None:
    token = callback_url.sign("deepmode", id.hex, number, keys)

    assert callback_url.verify("deepmode", token, KEYS) == (id.hex, number)


def test_a_wrong_one_is_told_neither_by_time_nor_by_round_trips(client: FlaskClient, redis: Any) -> None:
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

    # What else listens in this process asks now and then; each of 800 callbacks asking once would show.
    assert redis.info("stats")["total_commands_processed"] - before <= 40
    fastest = {name: min(times) for name, times in took.items()}
    assert max(fastest.values()) < 2 * min(fastest.values()), fastest
