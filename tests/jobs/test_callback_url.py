"""The token that names a job and an attempt."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.callback_url import callback_url, sign, verify
from jobs.errors import InvalidToken

JOB = "0123456789abcdef0123456789abcdef"
KEYS = ("the-signing-key", "the-key-before")


def test_a_token_names_its_job_and_its_attempt() -> None:
    assert verify("deepmode", sign("deepmode", JOB, 3, KEYS), KEYS) == (JOB, 3)


def test_the_token_of_a_fixed_job_never_changes() -> None:
    """Callbacks are on their way while a deploy runs."""
    assert sign("deepmode", JOB, 1, ["test-key"]) == f"{JOB}.1.wH8pjtisFfT8ZF2s5e1sygJ8akr2Qg8UgT4FCKjJQhs"


def test_a_callback_url_ends_in_provider_and_token() -> None:
    url = callback_url("https://darkroom.example/webhooks", "phota", JOB, 2, KEYS)
    assert url == f"https://darkroom.example/webhooks/phota/{sign('phota', JOB, 2, KEYS)}"


def test_the_first_key_signs_and_all_verify() -> None:
    assert sign("deepmode", JOB, 1, KEYS) == sign("deepmode", JOB, 1, KEYS[:1])
    assert verify("deepmode", sign("deepmode", JOB, 1, KEYS[1:]), KEYS) == (JOB, 1)


def test_a_key_that_was_taken_away_verifies_nothing() -> None:
    with pytest.raises(InvalidToken):
        verify("deepmode", sign("deepmode", JOB, 1, ["another-key"]), KEYS)


def test_without_keys_no_token_is_ours() -> None:
    with pytest.raises(InvalidToken):
        verify("deepmode", sign("deepmode", JOB, 1, KEYS), [])


GOOD = sign("deepmode", JOB, 1, KEYS)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        GOOD[:-1],
        GOOD + "A",
        GOOD + "\n",
        " " + GOOD,
        GOOD.upper(),
        GOOD.replace(".1.", ".2."),
        GOOD.replace(".1.", ".01."),
        GOOD.replace(".1.", ".0."),
        GOOD.replace(".1.", ".-1."),
        GOOD.replace(".1.", f".{10**9}."),
        GOOD.replace(".1.", ".\N{ARABIC-INDIC DIGIT ONE}."),
        GOOD.replace(JOB, "f" * 32),
        GOOD.replace(JOB, JOB.upper()),
        GOOD.rpartition(".")[0] + ".",
        GOOD.rpartition(".")[0] + "." + "A" * 43,
        GOOD.rpartition(".")[0] + "." + "é" * 43,
        "\x00" * 80,
        "a" * 100_000,
    ],
)
def test_a_token_that_is_not_ours_is_refused_without_saying_why(token: str) -> None:
    with pytest.raises(InvalidToken) as error:
        verify("deepmode", token, KEYS)
    assert str(error.value) == "the callback's token was not signed by any of our keys"


def test_a_token_of_one_provider_is_none_of_another() -> None:
    with pytest.raises(InvalidToken):
        verify("phota", GOOD, KEYS)


@given(st.text(max_size=120))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    with pytest.raises(InvalidToken):
        verify("deepmode", text, KEYS)


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_no_character_of_a_token_can_be_changed(place: int, character: str) -> None:
    changed = GOOD[:place] + character + GOOD[place + 1 :]
    if changed != GOOD:
        with pytest.raises(InvalidToken):
            verify("deepmode", changed, KEYS)


@given(st.uuids(), st.integers(1, 999_999_999), st.sampled_from(["deepmode", "phota", "x"]))
def test_every_job_and_attempt_can_be_signed(job: object, attempt: int, provider: str) -> None:
    name = job.hex  # type: ignore[attr-defined]
    assert verify(provider, sign(provider, name, attempt, KEYS), KEYS) == (name, attempt)


WRONG = {
    "of another job": sign("deepmode", "f" * 32, 1, ["another"]),
    "with a signature that is almost right": GOOD[:-1] + ("A" if GOOD[-1] != "A" else "B"),
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
            verify("deepmode", token, KEYS)
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_token_takes_as_many_steps_whatever_is_wrong(wrong: str) -> None:
    assert cryptography(WRONG[wrong]) == ["hmac_digest", "compare_digest"] * len(KEYS)
