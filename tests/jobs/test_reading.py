"""Reading what a vendor sent without trusting it."""

from __future__ import annotations

import time

import pytest

from jobs import reading


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the promise, the words are Python's
        reading.parsed(body)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a\nb\x00\ud800 c", "a b c"),
        ("see https://user:pw@a.example:8443/webhooks/x/token?sig=1 now", "see https://a.example:8443/… now"),
        ("Bearer abc.def is wrong", "Bearer … is wrong"),
        ("Incorrect API key provided: abc123", "Incorrect API key provided: …"),
        ("sk-proj-123456789 is wrong", "… is wrong"),
        ("got data:image/png;base64," + "iVBORw0KGgo" * 9, "got data:image/png;base64,…"),
        ("x " * 400, ("x " * 150)[:299] + "…"),
        ("无效的令牌", "无效的令牌"),
    ],
)
def test_secrets_do_not_show(words: str, shown: str) -> None:
    assert reading.redacted(words) == shown


def test_hostile_words_are_redacted_in_no_time() -> None:
    began = time.monotonic()

    for words in ("http://" * 100_000, "api key" * 100_000, "a@" * 500_000, "bearer " * 100_000):
        assert len(reading.redacted(words)) <= reading.MOST_CHARACTERS

    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example/x", "https://", "https:///x", "https://[", "https://a:99999/", "https://a/ b", "https://é/", 7],
)
def test_what_cannot_be_fetched_is_no_url(url: object) -> None:
    assert reading.url(url) is None


def test_a_url_stays_byte_exact() -> None:
    url = "HTTPS://A.example/x%2Fy?se=2024-07-11T00%3A34%3A17Z&sig=a%3D"

    assert reading.url(url) == url


@pytest.mark.parametrize("external_id", [".", "..", "", " ", "a b", "a\n", "é", True, None, 1.5, "x" * 201])
def test_what_cannot_stand_in_a_path_is_no_identifier(external_id: object) -> None:
    assert reading.identifier(external_id) is None


@pytest.mark.parametrize("amount", [True, "1", -1, float("nan"), float("inf"), 10**400])
def test_what_cannot_be_counted_is_no_number(amount: object) -> None:
    assert reading.number(amount) is None
