"""Reading what a vendor sent without trusting it."""

from __future__ import annotations

import time

import pytest

from jobs.providers import _parsing as parsing
from jobs.providers import _redaction as redaction


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the promise, the words are Python's
        parsing.parse_json(body)


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
    assert redaction.redacted(words) == shown


def test_more_than_a_message_may_be_kept_without_secrets() -> None:
    words = "a word " * 1000 + "Bearer abc"

    assert len(redaction.redacted(words, 4096)) == 4096
    assert redaction.redacted("x " * 1000 + "Bearer abc", 4096) == "x " * 1000 + "Bearer …"


PROMPT = {
    "prompt": "a red canary sings\nin its golden cage",
    "style": {"negative": "no black cats at all"},
    "id": "b8a9f7e5d1",
}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("refused: a red canary sings in its golden cage!", "refused: …!"),
        ("refused: a red canary sings in i…", "refused: ……"),
        ("the words 'canary sings in its golden' are unsafe", "the words '…' are unsafe"),
        ("no black cats at all", "…"),
        ("model b8a9f7e5d1 not found", "model b8a9f7e5d1 not found"),
        ("a red light", "a red light"),
    ],
)
def test_a_vendor_may_quote_no_prompt(words: str, shown: str) -> None:
    assert redaction.unquoted(words, PROMPT) == shown


def test_a_prompt_of_one_word_or_of_few_signs_is_found_too() -> None:
    assert redaction.unquoted("no Kanarienvogel here", {"prompt": "Kanarienvogel"}) == "no … here"
    assert redaction.unquoted("提示词无效 一只金色的金丝雀", {"prompt": "一只金色的金丝雀在唱歌"}) == "提示词无效 …"


def test_hostile_words_are_redacted_in_no_time() -> None:
    began = time.monotonic()

    for words in ("http://" * 100_000, "api key" * 100_000, "a@" * 500_000, "bearer " * 100_000):
        assert len(redaction.redacted(words)) <= redaction.MAX_CHARACTERS
        redaction.unquoted(redaction.redacted(words, 4096), {"prompt": words[:5000]})

    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example/x", "https://", "https:///x", "https://[", "https://a:99999/", "https://a/ b", "https://é/", 7],
)
def test_what_cannot_be_fetched_is_no_url(url: object) -> None:
    assert parsing.url(url) is None


def test_a_url_stays_byte_exact() -> None:
    url = "HTTPS://A.example/x%2Fy?se=2024-07-11T00%3A34%3A17Z&sig=a%3D"

    assert parsing.url(url) == url


@pytest.mark.parametrize("external_id", [".", "..", "", " ", "a b", "a\n", "é", True, None, 1.5, "x" * 201])
def test_what_cannot_stand_in_a_path_is_no_identifier(external_id: object) -> None:
    assert parsing.identifier(external_id) is None


@pytest.mark.parametrize("amount", [True, "1", -1, float("nan"), float("inf"), 10**400])
def test_what_cannot_be_counted_is_no_number(amount: object) -> None:
    assert parsing.number(amount) is None
