"""What is forgiven in an answer, one fault at a time, as text and values."""

from __future__ import annotations

import pytest

from worker.http import leniencies
from worker.http.leniencies import TABLE, Framing, Head, Leniency, content_codings, framing, is_whole_json, read_head


def head(*lines: str, status: str = "HTTP/1.1 200 OK", newline: str = "\r\n") -> Head | None:
    return read_head(newline.join([status, *lines]).encode("latin-1"))


def test_each_fault_has_a_reason_and_a_sentence() -> None:
    assert len({leniency.fault for leniency in TABLE}) == len(TABLE) > 15
    assert all(leniency.why for leniency in TABLE)
    assert {leniency.fault.split()[0] for leniency in TABLE} <= {
        "has",
        "is",
        "was",
        "ends",
        "begins",
        "names",
        "folds",
        "repeats",
    }


# Heads


@pytest.mark.parametrize(
    ("status_line", "status"),
    [
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.1 200", 200),
        ("HTTP/1.1 200 ", 200),
        ("HTTP/1.1  404\tNot  Found", 404),
        ("HTTP/1.0 500 OK", 500),
        ("HTTP/2 201 Created", 201),
        ("HTTP/2.0 201", 201),
        ("http/1.1 200 ok", 200),
        ("\r\n\r\nHTTP/1.1 200 OK", 200),
        ("HTTP/1.1 200 caf\xe9 \x00", 200),
    ],
)
def test_a_status_line_is_read_in_each_spelling(status_line: str, status: int) -> None:
    assert head(status=status_line) == Head(
        status, {}, persistent=status_line.startswith(("HTTP/1.1", "http/1.1", "\r"))
    )


@pytest.mark.parametrize(
    "status_line",
    [
        "",
        "HTTP/1.1",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 200OK",
        "ICY 200 OK",
        "<html>",
        "200 OK",
    ],
)
def test_anything_else_is_not_http(status_line: str) -> None:
    assert head("A: b", status=status_line) is None


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_header_lines_are_read_whatever_ends_them(newline: str) -> None:
    read = head("X-A:1", "x-a :  2 ", "B: ", "C: d: e", newline=newline)
    assert read == Head(200, {"x-a": "1, 2", "b": "", "c": "d: e"})


def test_a_folded_line_belongs_to_the_header_before() -> None:
    assert head("A: 1", "  2", "\t3: 4", "B: 5") == Head(200, {"a": "1 2 3: 4", "b": "5"})
    assert head(" A: 1") == Head(200, {"a": "1"})


def test_a_name_may_hold_anything_but_a_colon() -> None:
    assert head("X Request Id: 1", "\x00: 2", "Content-Length: 3") == Head(
        200, {"x request id": "1", "\x00": "2", "content-length": "3"}
    )


def test_a_value_in_latin_1_is_read_byte_for_byte() -> None:
    assert head("X-Model: Gr\xfc\xdfe\x7f") == Head(200, {"x-model": "Gr\xfc\xdfe\x7f"})


def test_a_line_without_a_colon_is_left_out_in_doubt() -> None:
    assert head("A: 1", "Warning in line 3", "B: 2") == Head(200, {"a": "1", "b": "2"}, doubt=leniencies.NO_COLON)


@pytest.mark.parametrize("connection", ["close", "Close", "keep-alive, close"])
def test_a_connection_that_is_to_be_closed_is_not_used_again(connection: str) -> None:
    read = head(f"Connection: {connection}")
    assert read is not None
    assert not read.persistent


# Framing


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Framing()),
        ({"content-length": "154"}, Framing(length=154)),
        ({"content-length": "000154"}, Framing(length=154)),
        ({"content-length": "154, 154"}, Framing(length=154)),
        ({"content-length": "9" * 30}, Framing(length=int("9" * 30))),
        ({"transfer-encoding": "chunked"}, Framing(chunked=True)),
        ({"transfer-encoding": "Chunked, chunked"}, Framing(chunked=True)),
        ({"transfer-encoding": "chunked", "content-length": "3"}, Framing(chunked=True, exact=False)),
        ({"transfer-encoding": "identity"}, Framing()),
        ({"transfer-encoding": "identity", "content-length": "154"}, Framing(length=154)),
        ({"transfer-encoding": "identity, chunked"}, Framing(chunked=True)),
        ({"transfer-encoding": "", "content-length": "154"}, Framing(length=154)),
    ],
)
def test_the_end_of_a_body_is_found_by_its_headers(headers: dict[str, str], expected: Framing) -> None:
    assert framing(headers) == expected


@pytest.mark.parametrize("length", ["", "-1", "+1", "1.0", "undefined", "1, 2", "\xb2", "9" * 5000, "0x9a", "1_0"])
def test_a_length_that_is_not_one_number_is_no_length(length: str) -> None:
    assert framing({"content-length": length}) == Framing(doubt=leniencies.BAD_LENGTH)


@pytest.mark.parametrize(("coding", "chunked"), [("gzip", False), ("gzip, chunked", True), ("utf-8", False)])
def test_another_transfer_coding_leaves_a_doubt(coding: str, chunked: bool) -> None:
    assert framing({"transfer-encoding": coding}) == Framing(chunked, doubt=leniencies.OTHER_CODING)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"9a", 154),
        (b"9A", 154),
        (b"0000009a", 154),
        (b"9a;name=value", 154),
        (b"9a ; x", 154),
        (b"9a   ", 154),
        (b"0", 0),
        (b"", None),
        (b"-1", None),
        (b"0x9a", None),
        (b"{", None),
        (b"9a 9a", None),
        (b"f" * 16, None),
    ],
)
def test_the_size_of_a_chunk_is_read_without_its_extensions(line: bytes, size: int | None) -> None:
    assert leniencies.chunk_size(line) == size


# Bodies


@pytest.mark.parametrize(
    ("value", "codings"),
    [
        ("gzip", ["gzip"]),
        ("X-GZip", ["x-gzip"]),
        ("deflate, gzip", ["gzip", "deflate"]),
        ("identity", []),
        ("", []),
        ("UTF-8", []),
        ("aws-chunked", []),
        ("aws-chunked, gzip", ["gzip"]),
        ("br", None),
        ("gzip, br", None),
    ],
)
def test_the_codings_of_a_body_are_undone_from_the_last_one(value: str, codings: list[str] | None) -> None:
    assert content_codings({"content-encoding": value}) == codings


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b' \r\n{"a": [1, 2, {"b": null}]}\n\0',
        b"\xef\xbb\xbf{}",
        '{"a": "ü"}'.encode("latin-1"),
        b'{"a": "\n"}',
    ],
)
def test_a_json_object_or_array_that_is_closed_is_whole(body: bytes) -> None:
    assert is_whole_json(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b'{"a": 1', b'{"a": [1}', b'{"a": 1}}', b"{}{}", b"{} trailing", b"[" * 100_000 + b"]" * 100_000),
        *(b"12", b"true", b"null", b'"text"', b"<html>}", b"\xff\xfe}", b"abc}"),
    ],
)
def test_nothing_else_shows_that_it_is_whole(body: bytes) -> None:
    assert not is_whole_json(body)


def test_no_beginning_of_a_json_value_passes_as_whole() -> None:
    text = b'{"data": [{"url": "https://p.example/a.png?x={}[]", "n": 12.5}, {}], "meta": null, "ok": true}'
    assert [cut for cut in range(len(text)) if is_whole_json(text[:cut])] == []
    assert is_whole_json(text)


def test_the_table_holds_every_fault_of_the_module() -> None:
    assert set(TABLE) == {value for value in vars(leniencies).values() if isinstance(value, Leniency)}
