"""What all providers share of the contract: waits, and what an HTTP status means."""

from __future__ import annotations

import pytest

from jobs import Code
from jobs.providers._contract import MAX_RETRY_AFTER_SECONDS, Context, Response, failed_by_status, retry_after_seconds

NOON = "Wed, 10 Jun 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 90 ", 90.0),
        ("1.5", 1.5),
        ("3600", 3600.0),
        ("999999999999", MAX_RETRY_AFTER_SECONDS),
        ("Wed, 10 Jun 2026 12:05:00 GMT", 300.0),
        ("Wed, 10 Jun 2026 14:05:00 +0200", 300.0),
        ("Wednesday, 10-Jun-26 12:00:30 GMT", 30.0),
        ("Wed, 10 Jun 2026 11:00:00 GMT", 0.0),
        ("Fri, 10 Jun 2050 12:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_a_wait_is_read_in_seconds_decimals_and_dates(asked: str, seconds: float) -> None:
    assert retry_after_seconds(Response(429, {"retry-after": asked, "date": NOON})) == seconds


@pytest.mark.parametrize(
    "asked", ["", "soon", "-1", "nan", "inf", "1e9", "1,5", "٣", "10 Jun", "Wed, 99 Jun 2026 12:05:00 GMT", "9" * 400]
)
def test_a_wait_that_cannot_be_read_is_ignored(asked: str) -> None:
    assert retry_after_seconds(Response(429, {"retry-after": asked, "date": NOON})) is None


@pytest.mark.parametrize("date", ["", "now", "Wed, 99 Jun 2026 12:00:00 GMT"])
def test_a_date_without_the_time_of_the_response_is_ignored(date: str) -> None:
    headers = {"retry-after": "Wed, 10 Jun 2026 12:05:00 GMT"} | ({"date": date} if date else {})

    assert retry_after_seconds(Response(503, headers)) is None


def test_a_failure_asks_for_the_whole_wait() -> None:
    assert failed_by_status(Response(503, {"retry-after": "600"}), "away").retry_after_seconds == 600


@pytest.mark.parametrize("status", [429, 503, 521, 523, 525, 526, 530])
def test_a_provider_that_did_nothing_is_asked_again_later(status: int) -> None:
    assert failed_by_status(Response(status), "later").is_not_now


@pytest.mark.parametrize("words", ["'a richly saturated sunset'", '"throttled bitrate"', "“overloaded shelves”"])
def test_words_of_load_in_a_quoted_prompt_say_nothing_about_the_provider(words: str) -> None:
    failure = failed_by_status(Response(400), f"prompt rejected: {words}")

    assert (failure.code, failure.is_not_now) == (Code.INVALID_REQUEST, False)


@pytest.mark.parametrize("words", ["Overloaded", "rate limit exceeded", "request was throttled", "upstream saturated"])
@pytest.mark.parametrize("status", [400, 403, 409, 425])
def test_a_refusal_that_speaks_of_load_is_asked_again_later(status: int, words: str) -> None:
    failure = failed_by_status(Response(status), words)

    assert failure.is_not_now
    assert failure.code == "rate_limited"


@pytest.mark.parametrize("status", [408, 500, 502, 504, 520, 522, 524])
def test_a_provider_that_may_have_begun_is_not_taken_for_free(status: int) -> None:
    failure = failed_by_status(Response(status), "overloaded")

    assert failure.charged == "unknown"
    assert not failure.is_not_now


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_a_refusal_is_free_and_final(status: int) -> None:
    failure = failed_by_status(Response(status), "no")

    assert (failure.charged, failure.retryable, failure.not_now) == ("no", False, False)


def test_secrets_do_not_show_in_a_context() -> None:
    shown = repr(Context("a1-1", "https://d.example/webhooks/x/the-token", "the-key"))

    assert "the-key" not in shown
    assert "the-token" not in shown
