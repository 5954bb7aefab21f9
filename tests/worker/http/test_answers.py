"""An answer is read the same however its bytes are cut, and whatever they are it ends within its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.http import leniencies
from worker.http.answers import MAX_HEAD_BYTES, MAX_HEAD_LINES, MAX_INTERIM_ANSWERS, MAX_PIECES, AnswerReader
from worker.http.leniencies import Leniency

JSON = b'{"data": [{"url": "https://p.example/a.png?sig=a%2Bb%3D"}]}'
SIZE = b"%x" % len(JSON)
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Seen:
    """What a reader says at the end."""

    status: int | None
    body: bytes
    doubt: Leniency | None
    failure: str | None


def read(pieces: Sequence[bytes], *, ends: bool = True, cleanly: bool = True) -> AnswerReader:
    reader = AnswerReader()
    for piece in pieces:
        reader.feed(piece)
    if ends:
        reader.end(cleanly=cleanly)
    return reader


def seen(reader: AnswerReader) -> Seen:
    return Seen(reader.head.status if reader.head else None, reader.body, reader.doubt, reader.failure)


def whole(body: bytes = JSON, doubt: Leniency | None = None) -> Seen:
    return Seen(200, body, doubt, None)


def length(size: int) -> bytes:
    return b"Content-Length: %d\r\n" % size


#: answers that are read without a doubt, by the fault that is forgiven
HARMLESS = {
    "correct": OK + length(len(JSON)) + b"\r\n" + JSON,
    "chunked": OK
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n%x\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n"
    % (JSON[:5], len(JSON) - 5, JSON[5:]),
    "to the end of the connection": OK + b"\r\n" + JSON,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + JSON,
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
    + OK
    + length(len(JSON))
    + b"\r\n"
    + JSON,
    "bare newlines": (OK + length(len(JSON)) + b"\r\n").replace(b"\r\n", b"\n") + JSON,
    "bare newlines in chunks": b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n%b\n%b\n0\n\n" % (SIZE, JSON),
    "leading lines": b"\r\n\r\n\n" + OK + length(len(JSON)) + b"\r\n" + JSON,
    "no reason": b"HTTP/1.1 200\r\n" + length(len(JSON)) + b"\r\n" + JSON,
    "folded line": OK + b"X-A: 1\r\n  2\r\n" + length(len(JSON)) + b"\r\n" + JSON,
    "odd name": OK + b"X Request Id: 1\r\n" + length(len(JSON)) + b"\r\n" + JSON,
    "space before the colon": OK + b"Content-Length : %d\r\n\r\n" % len(JSON) + JSON,
    "Latin-1": OK + b"X-Model: Gr\xfc\xdfe\r\n" + length(len(JSON)) + b"\r\n" + JSON,
    "identity": OK + b"Transfer-Encoding: identity\r\n" + length(len(JSON)) + b"\r\n" + JSON,
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n%b\r\n%b\r\n0\r\n\r\n" % (SIZE, JSON),
    "chunked with a length": OK
    + b"Transfer-Encoding: chunked\r\n"
    + length(3)
    + b"\r\n%b\r\n%b\r\n0\r\n\r\n" % (SIZE, JSON),
    "length twice": OK + length(len(JSON)) * 2 + b"\r\n" + JSON,
    "chunk extension": OK + b'Transfer-Encoding: chunked\r\n\r\n00%b;a="b c" \r\n%b\r\n0;x\r\n\r\n' % (SIZE, JSON),
    "no line after a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n%b\r\n%b0\r\n\r\n" % (SIZE, JSON),
    "no line after the last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n%b\r\n%b\r\n0\r\n" % (SIZE, JSON),
}
#: answers whose body is all there, and has to prove it
DOUBTFUL = {
    leniencies.NO_COLON: OK + b"Warning in line 3\r\n" + length(len(JSON)) + b"\r\n" + JSON,
    leniencies.BAD_LENGTH: OK + b"Content-Length: -1\r\n\r\n" + JSON,
    leniencies.OTHER_CODING: OK + b"Transfer-Encoding: utf-8\r\n\r\n" + JSON,
    leniencies.NOT_CHUNKED: OK + b"Transfer-Encoding: chunked\r\n\r\n" + JSON,
    leniencies.BAD_CHUNK: OK + b"Transfer-Encoding: chunked\r\n\r\n%b\r\n%b\r\n<p>\r\n" % (SIZE, JSON),
    leniencies.CUT: OK + length(len(JSON) + 2) + b"\r\n" + JSON,
}


@pytest.mark.parametrize("answer", HARMLESS.values(), ids=HARMLESS)
def test_a_harmless_fault_changes_nothing_wherever_the_bytes_are_cut(answer: bytes) -> None:
    assert seen(read([answer])) == whole()
    assert seen(read([bytes([byte]) for byte in answer])) == whole()
    for cut in range(1, len(answer)):
        assert seen(read([answer[:cut], answer[cut:]])) == whole()


@pytest.mark.parametrize(("doubt", "answer"), DOUBTFUL.items(), ids=[doubt.fault for doubt in DOUBTFUL])
def test_a_doubtful_fault_leaves_its_doubt_and_all_bytes_wherever_they_are_cut(doubt: Leniency, answer: bytes) -> None:
    assert seen(read([answer])) == whole(doubt=doubt)
    assert seen(read([bytes([byte]) for byte in answer])) == whole(doubt=doubt)
    for cut in range(1, len(answer)):
        assert seen(read([answer[:cut], answer[cut:]])) == whole(doubt=doubt)


def test_every_doubtful_leniency_is_read_here_or_by_the_transport() -> None:
    elsewhere = {leniencies.LENGTH_TOO_SMALL, leniencies.UNREADABLE_CODING}
    assert {leniency for leniency in leniencies.TABLE if leniency.doubtful} == DOUBTFUL.keys() | elsewhere


@pytest.mark.parametrize("name", ["correct", "chunked", "bare newlines in chunks", "chunked twice"])
def test_an_answer_that_is_cut_anywhere_in_its_body_is_in_doubt(name: str) -> None:
    answer = HARMLESS[name]
    last = answer.rindex(JSON[-1:]) + 1
    for cut in range(answer.index(b"\n\r\n") + 3 if b"\n\r\n" in answer else answer.index(b"\n\n") + 2, last):
        reader = read([answer[:cut]])
        assert (reader.doubt, reader.done) == (leniencies.CUT, True)
        assert JSON.startswith(reader.body)


def test_a_body_to_the_end_of_the_connection_is_in_doubt_if_that_broke() -> None:
    assert seen(read([OK + b"\r\n" + JSON], cleanly=False)) == whole(doubt=leniencies.CUT)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_whatever_their_headers_say(status: int) -> None:
    reader = read([b"HTTP/1.1 %d X\r\n" % status + length(3) + b"\r\n"], ends=False)
    assert seen(reader) == Seen(status, b"", None, None)


def test_the_answer_to_a_head_has_no_body() -> None:
    reader = AnswerReader()
    reader.bodiless = True
    reader.feed(OK + length(3) + b"\r\n")
    assert (reader.done, reader.body) == (True, b"")


# When it is done


@pytest.mark.parametrize("name", ["correct", "chunked", "chunked twice", "length twice", "odd name", "identity"])
def test_a_sized_answer_is_done_with_its_last_byte_and_leaves_the_connection_to_another(name: str) -> None:
    reader = read([HARMLESS[name]], ends=False)
    assert reader.done
    assert reader.ends_cleanly is (name != "chunked"), "a trailer is not read"


@pytest.mark.parametrize(
    "answer",
    [
        HARMLESS["correct"] + b"x",
        HARMLESS["chunked with a length"],
        HARMLESS["HTTP/1.0"],
        HARMLESS["correct"].replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
        HARMLESS["chunked twice"].removesuffix(b"\r\n"),
        DOUBTFUL[leniencies.NO_COLON],
        DOUBTFUL[leniencies.BAD_CHUNK],
    ],
    ids=["surplus", "two ends", "HTTP/1.0", "close", "half an end", "no colon", "bad chunk"],
)
def test_any_other_answer_is_the_last_one_of_its_connection(answer: bytes) -> None:
    assert not read([answer], ends=False).ends_cleanly


def test_bytes_after_the_end_are_kept_apart() -> None:
    reader = read([OK + length(len(JSON) - 2) + b"\r\n" + JSON], ends=False)
    assert (reader.body, reader.surplus, reader.done) == (JSON[:-2], JSON[-2:], True)


def test_news_is_a_body_that_outgrows_what_is_allowed_and_the_end() -> None:
    reader = AnswerReader()
    reader.feed(OK)
    assert not reader.has_news
    reader.feed(length(10) + b"\r\n")
    assert reader.has_news, "nothing is allowed yet"
    reader.allowed = 4
    reader.feed(b"abcd")
    assert not reader.has_news
    reader.feed(b"e")
    assert reader.has_news
    reader.allowed = 10
    reader.feed(b"fghij")
    assert reader.has_news
    assert reader.body == b"abcdefghij"


# Bounds


def test_heads_are_bounded_in_bytes_whole_or_in_pieces() -> None:
    for pieces in (
        [OK + b"X: " + b"x" * MAX_HEAD_BYTES],
        [OK, *[b"X: %b\r\n" % (b"x" * 1000)] * 200],
        [b"\r\n" * MAX_HEAD_BYTES],
    ):
        reader = read(pieces, ends=False)
        assert reader.done
        assert f"more than {MAX_HEAD_BYTES} bytes" in (reader.failure or "")


def test_heads_are_bounded_in_lines() -> None:
    fits, too_many = (read([OK + b"X: 1\r\n" * count + b"\r\n"]) for count in (MAX_HEAD_LINES - 2, MAX_HEAD_LINES))
    assert fits.failure is None
    assert f"more than {MAX_HEAD_LINES} lines" in (too_many.failure or "")


def test_interim_answers_are_bounded_together() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    progress = read([interim] * (MAX_INTERIM_ANSWERS - 1) + [HARMLESS["correct"]])
    assert seen(progress) == whole()
    assert "interim" in (read([interim] * (MAX_INTERIM_ANSWERS + 1), ends=False).failure or "")
    heavy = read([b"HTTP/1.1 103 Hints\r\nLink: %b\r\n\r\n" % (b"x" * 1000)] * 200, ends=False)
    assert "bytes" in (heavy.failure or "")


def test_no_other_protocol_is_spoken() -> None:
    assert read([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"], ends=False).failure


@pytest.mark.parametrize("start", [b"SSH-2.0-OpenSSH\r\n", b"<html>", b"\x16\x03\x01\x02", b"HTTQ/1.1 200 OK", b"{"])
def test_another_protocol_is_seen_by_its_first_bytes(start: bytes) -> None:
    assert read([start], ends=False).failure == "its answer is not HTTP"


@pytest.mark.parametrize(
    "piece",
    [b"1\r\nx\r\n", b"\r\n", b"1;" + b"x" * 4000 + b"\r\ny\r\n"],
    ids=["tiny chunks", "empty lines", "extensions"],
)
def test_a_flood_of_tiny_chunks_ends(piece: bytes) -> None:
    reader = read([OK + b"Transfer-Encoding: chunked\r\n\r\n"], ends=False)
    for _ in range(MAX_PIECES // 10):
        reader.feed(piece * 20)
    assert "pieces" in (reader.failure or "")
    assert reader.done


def test_a_large_body_may_come_in_many_pieces() -> None:
    reader = read([OK + length(600 * 70_000) + b"\r\n"], ends=False)
    for _ in range(70_000):
        reader.feed(bytes(600))
    assert (reader.failure, reader.size, reader.done) == (None, 600 * 70_000, True)


# Any bytes


WORDS = [
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.0 503",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b";",
    ),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Content-Length: 7", b"Content-Length: x"),
    *(
        b"7\r\nabcdefg\r\n",
        b"0\r\n\r\n",
        b"ffffffffffff\r\n",
        JSON,
        b"{}",
        b"\x00",
        b"\xff",
        b"Location: /",
        b"9" * 5000,
    ),
]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.binary(max_size=40), max_size=30), st.booleans(), st.integers(1, 7))
def test_any_bytes_end_in_an_answer_or_in_a_failure_and_cuts_do_not_matter(
    words: list[bytes], cleanly: bool, step: int
) -> None:
    content = b"".join(words)
    reader = read([content], cleanly=cleanly)
    assert reader.done
    assert (reader.head is None) <= (reader.failure is not None)
    assert reader.size == len(reader.body) <= len(content)
    pieces = [content[start : start + step] for start in range(0, len(content), step)]
    in_pieces = seen(read(pieces, cleanly=cleanly))
    assert replace(in_pieces, failure=None) == replace(seen(reader), failure=None)
    assert (in_pieces.failure is None) == (reader.failure is None)
