"""Callback tokens: only those that we signed are valid, and a wrong one reveals nothing, not even by its timing."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import callback_url
from jobs.errors import InvalidToken
from jobs.settings import Settings

KEYS = ("the-signing-secret", "the-one-before")
JOB = "0123456789abcdef0123456789abcdef"
TOKEN = callback_url.sign("deepmode", JOB, 1, KEYS)

printable = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#%")


@st.composite
def damaged(draw: Any) -> str:
    """A valid token with a few characters changed, removed or inserted."""
    token = list(TOKEN)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(token) - 1))
        token[at : at + draw(st.integers(0, 2))] = draw(st.text(printable, max_size=2))
    return "".join(token)


@given(st.one_of(damaged(), st.text(printable, max_size=120), st.text(max_size=60)))
def test_only_a_signed_token_is_valid(token: str) -> None:
    if token == TOKEN:
        return
    with pytest.raises(InvalidToken):
        callback_url.verify("deepmode", token, KEYS)


@given(st.sampled_from(["chainhub", "phota", "aimlapi", ""]), st.integers(1, 999_999_999), st.text(max_size=20))
def test_a_token_is_valid_for_one_provider_one_attempt_and_our_keys(provider: str, attempt: int, key: str) -> None:
    for other in (
        callback_url.sign(provider, JOB, 1, KEYS),
        f"{JOB}.{attempt + 1}.{TOKEN.rpartition('.')[2]}",
        callback_url.sign("deepmode", JOB, attempt, [key]),
    ):
        with pytest.raises(InvalidToken):
            callback_url.verify("deepmode", other, KEYS)


@given(st.uuids(), st.integers(1, 999_999_999), st.permutations(KEYS))
def test_a_token_names_its_job_and_attempt_whichever_key_signed_it(id: Any, number: int, keys: Any) -> None:
    token = callback_url.sign("deepmode", id.hex, number, keys)

    assert callback_url.verify("deepmode", token, KEYS) == (id.hex, number)


WRONG = {
    "of another job": callback_url.sign("deepmode", "f" * 32, 1, ["another"]),
    "with a signature that is almost right": TOKEN[:-1] + ("A" if TOKEN[-1] != "A" else "B"),
    "with a signature that is all wrong": f"{JOB}.1.{'A' * 43}",
    "of another form": "x",
}


def cryptography(token: str) -> list[str]:
    """The cryptographic functions that are called to verify a wrong token, in their order."""
    called: list[str] = []

    def record(_frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__.endswith(("hmac_digest", "compare_digest")):
            called.append(function.__name__.lstrip("_"))

    sys.setprofile(record)
    try:
        with pytest.raises(InvalidToken):
            callback_url.verify("deepmode", token, KEYS)
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_token_takes_as_many_steps_whatever_is_wrong(wrong: str) -> None:
    assert cryptography(WRONG[wrong]) == ["hmac_digest", "compare_digest"] * len(KEYS)


def test_a_wrong_token_costs_no_connection_to_redis(settings: Settings, new_app: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
        client = new_app(settings=settings.model_copy(update={"redis_url": url})).test_client()

        statuses = {client.post(f"/webhooks/deepmode/{token}", data=b"{}").status_code for token in WRONG.values()}

        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert statuses == {403}
