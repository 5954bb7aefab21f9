"""The transport against real sockets: what goes out, what comes back, and what is known when nothing does."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from raw_server import (
    LOOPBACK,
    OK,
    Respond,
    fetch,
    free_port,
    on_the_loop,
    post,
    raised_by,
    resolving,
    serving,
)

from jobs.address_guard import Address
from jobs.providers._contract import FilePart, Response
from worker.transport import (
    ForbiddenAddress,
    NotSent,
    OutcomeUnknown,
    TooLarge,
    TooManyRedirects,
    Transport,
)

SECRET = "sig=s3cr3t"


# What goes out


@pytest.mark.parametrize(
    "target",
    [
        "/a%3Ab%3Dc?sig=a%2Bb%3D%3D&se=2026-11-20T08%3A00%3A00Z",
        "/it's/(a)+b,c;d~e!f*g",
        "/%E2%82%AC/a%20b?q=%e2%82%ac",
        "/a/../b/./c//d?x=/../y",
        "/?",
        "/?a=1&&b=&=c?d",
        '/[x]|{y}^`z`?a=[1]\\"<>',
    ],
)
@on_the_loop
async def test_a_url_goes_out_byte_for_byte(target: str) -> None:
    async with serving() as server:
        await post(server.url(target))
        await fetch(server.url(target))
    assert [request.line for request in server.requests] == [f"POST {target} HTTP/1.1", f"GET {target} HTTP/1.1"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("", "/"),
        ("?a=1", "/?a=1"),
        ("/a#part", "/a"),
        ("/a b", "/a%20b"),
        ("/ü?q=€%3A", "/%C3%BC?q=%E2%82%AC%3A"),
        ("/a\r\nX-Evil: 1\r\n\r\n", "/a%0D%0AX-Evil:%201%0D%0A%0D%0A"),
    ],
)
@on_the_loop
async def test_only_what_cannot_stand_in_a_request_line_is_escaped(written: str, sent: str) -> None:
    async with serving() as server:
        await post(server.url(written))
    assert server.requests[0].line == f"POST {sent} HTTP/1.1"


@on_the_loop
async def test_json_goes_out_with_our_name_and_asks_for_plain_json() -> None:
    async with serving() as server:
        response = await post(server.url(), json={"prompt": "ein See — dawn", "n": 3}, headers={"X-API-Key": "k"})
    (request,) = server.requests
    assert response == Response(200, {"content-type": "application/json", "content-length": "2"}, b"{}")
    assert json.loads(request.body) == {"prompt": "ein See — dawn", "n": 3}
    assert request.headers[0] == ("Host", f"127.0.0.1:{server.port}")
    assert request.header("Content-Type") == "application/json"
    assert request.header("User-Agent") == f"darkroom/{version('darkroom')}"
    assert request.header("Accept") == "application/json"
    assert request.header("Accept-Encoding") == "identity"
    assert request.header("X-API-Key") == "k"


@on_the_loop
async def test_a_header_of_the_caller_replaces_ours_in_whatever_case() -> None:
    async with serving() as server:
        await post(server.url(), json={}, headers={"accept": "*/*", "CONTENT-TYPE": "application/vnd.x+json"})
    assert server.requests[0].header("Accept") == "*/*"
    assert server.requests[0].header("Content-Type") == "application/vnd.x+json"


@on_the_loop
async def test_host_and_length_are_said_once_whatever_the_caller_signed() -> None:
    async with serving() as server:
        await post(server.url(), content=b"abc", headers={"host": "other.test", "content-length": "3"})
    (request,) = server.requests
    assert request.header("Host") == f"127.0.0.1:{server.port}"
    assert request.header("Content-Length") == "3"


@on_the_loop
async def test_a_form_without_files_is_urlencoded() -> None:
    async with serving() as server:
        await post(server.url(), form={"prompt": "a b&c=ü", "n": "1"})
    assert server.requests[0].header("Content-Type") == "application/x-www-form-urlencoded"
    assert server.requests[0].body == b"prompt=a+b%26c%3D%C3%BC&n=1"


@on_the_loop
async def test_a_form_with_files_is_multipart_under_a_boundary_of_the_library() -> None:
    files = [
        FilePart("identity_image", "face.png", b"\x89PNG\r\n--not-a-boundary\r\n", "image/png"),
        FilePart("mask_image", "mask.webp", b"RIFF", "image/webp"),
    ]
    async with serving() as server:
        await post(server.url(), form={"prompt": "größer", "mode": "sync"}, files=files)
    (request,) = server.requests
    match = re.fullmatch(r"multipart/form-data; boundary=([0-9a-zA-Z]{16,70})", request.header("Content-Type"))
    assert match is not None
    boundary = match[1].encode()
    assert request.body == (
        b'--%(b)b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + "größer".encode() + b"\r\n"
        b'--%(b)b\r\nContent-Disposition: form-data; name="mode"\r\n\r\nsync\r\n'
        b'--%(b)b\r\nContent-Disposition: form-data; name="identity_image"; filename="face.png"\r\n'
        b"Content-Type: image/png\r\n\r\n\x89PNG\r\n--not-a-boundary\r\n\r\n"
        b'--%(b)b\r\nContent-Disposition: form-data; name="mask_image"; filename="mask.webp"\r\n'
        b"Content-Type: image/webp\r\n\r\nRIFF\r\n"
        b"--%(b)b--\r\n"
    ) % {b"b": boundary}


@on_the_loop
async def test_a_raw_body_goes_out_as_it_is_under_exactly_the_given_headers() -> None:
    content = bytes(range(256)) * 40_000  # 10 MB: more than any buffer on the way
    async with serving(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n") as server:
        headers = {"Content-Type": "image/png", "If-None-Match": "*"}
        bounds: dict[str, Any] = {"timeout_seconds": 20, "max_bytes": 1000}
        response = await Transport().send("PUT", server.url("/k"), content=content, headers=headers, **bounds)
    (request,) = server.requests
    assert response.status == 412
    assert hashlib.sha256(request.body).digest() == hashlib.sha256(content).digest()
    assert request.header("Content-Length") == str(len(content))
    assert request.header("Content-Type") == "image/png"
    assert request.header("If-None-Match") == "*"
    assert "transfer-encoding" not in {name.lower() for name, _ in request.headers}


@pytest.mark.parametrize(("method", "length"), [("POST", ["0"]), ("PUT", ["0"]), ("GET", [])])
@on_the_loop
async def test_a_request_without_a_body_says_so_where_one_could_be(method: str, length: list[str]) -> None:
    async with serving() as server:
        await Transport().send(method, server.url(), timeout_seconds=5, max_bytes=100)
    assert [value for name, value in server.requests[0].headers if name.lower() == "content-length"] == length


@on_the_loop
async def test_every_call_opens_a_connection_of_its_own() -> None:
    async with serving() as server:
        transport = Transport()
        for _ in range(3):
            await post(server.url(), transport)
    assert server.connections == 3
    assert {request.header("Connection") for request in server.requests} == {"close"}


# What comes back


@on_the_loop
async def test_any_status_is_an_answer_and_a_redirect_is_not_followed() -> None:
    for status in (201, 302, 404, 429, 503):
        answer = b"HTTP/1.1 %d X\r\nLocation: /other\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\nabc" % status
        async with serving(answer) as server:
            response = await post(server.url())
        assert (response.status, response.body, response.headers["retry-after"]) == (status, b"abc", "7")
        assert server.connections == 1


@on_the_loop
async def test_header_names_are_lower_case_and_repeated_ones_are_joined() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n\r\n") as server:
        response = await post(server.url())
    assert response.headers == {"x-a": "1, 2"}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nabcdefg",
        b"HTTP/1.0 200 OK\r\n\r\nabcdefg",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefgSURPLUS",
    ],
    ids=["chunked", "until close", "HTTP/1.0", "after 1xx", "surplus"],
)
@on_the_loop
async def test_a_body_is_read_in_each_framing(answer: bytes) -> None:
    async with serving(answer) as server:
        response = await post(server.url())
    assert (response.status, response.body) == (200, b"abcdefg")


@on_the_loop
async def test_an_answer_in_single_bytes_is_put_together() -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async with serving(dribble) as server:
        assert (await post(server.url())).body == b"hello"


@on_the_loop
async def test_an_early_refusal_of_a_large_upload_is_read() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        writer.write_eof()
        await asyncio.sleep(60)

    async with serving(refuse, reads=False) as server:
        response = await post(server.url(), content=bytes(20 << 20))
    assert (response.status, response.body) == (413, b"big")


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15), ("GZip ", 31)])
@on_the_loop
async def test_a_compressed_answer_that_nobody_asked_for_is_inflated(encoding: str, wbits: int) -> None:
    body = zlib.compress(b"hello" * 100, wbits=wbits)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(head.encode() + body) as server:
        response = await post(server.url())
    assert response == Response(200, {}, b"hello" * 100)


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("gzip", gzip.compress(bytes(10 << 20)), TooLarge),
        ("gzip", gzip.compress(b"hello" * 100)[:-9], OutcomeUnknown),
        ("gzip", b"no gzip", OutcomeUnknown),
        ("br", b"x", OutcomeUnknown),
    ],
    ids=["bomb", "cut", "nonsense", "unknown"],
)
@on_the_loop
async def test_a_compressed_answer_that_cannot_be_trusted_is_refused(
    encoding: str, body: bytes, error: type[Exception]
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(head.encode() + body) as server:
        with pytest.raises(error):
            await post(server.url())


# How much comes back


@on_the_loop
async def test_an_answer_that_says_it_is_too_large_is_not_read() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n") as server:
        for call in (post, fetch):
            with pytest.raises(TooLarge, match="1001 bytes, more than 1000"):
                await call(server.url(), max_bytes=1000)


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked\r\n", b""], ids=["chunked", "until close"])
@on_the_loop
async def test_an_answer_without_an_end_is_cut_off_at_the_limit(head: bytes) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n" % head)
        with suppress(ConnectionError):
            while True:
                writer.write(b"10000\r\n%b\r\n" % bytes(65536))
                await writer.drain()
        server.left.set()

    async with serving(pour) as server:
        with pytest.raises(TooLarge, match="more than 1048576 bytes"):
            await fetch(server.url())
        await asyncio.wait_for(server.left.wait(), 5)


@on_the_loop
async def test_an_answer_of_exactly_the_limit_is_taken() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(1000)) as server:
        assert len((await fetch(server.url(), max_bytes=1000)).body) == 1000


@on_the_loop
async def test_an_answer_in_absurdly_many_pieces_is_given_up() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 70_000 + b"0\r\n\r\n"
    async with serving(answer) as server:
        with pytest.raises(OutcomeUnknown, match="pieces"):
            await fetch(server.url())


@pytest.mark.parametrize(
    ("answer", "reserved"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg", 7),
        (b"HTTP/1.1 200 OK\r\n\r\nabcdefg", 1 << 20),
    ],
    ids=["length", "no length"],
)
@on_the_loop
async def test_room_for_the_body_is_reserved_once_before_it_is_read(answer: bytes, reserved: int) -> None:
    asked: list[int] = []

    async def reserve(n_bytes: int) -> None:
        asked.append(n_bytes)

    async with serving(answer) as server:
        await fetch(server.url(), reserve=reserve)
    assert asked == [reserved]


@on_the_loop
async def test_an_answer_of_unknown_length_reserves_as_it_grows() -> None:
    asked: list[int] = []

    async def reserve(n_bytes: int) -> None:
        asked.append(n_bytes)

    async with serving(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(9 << 20)) as server:
        response = await fetch(server.url(), reserve=reserve, max_bytes=64 << 20)
    assert len(response.body) == 9 << 20
    assert asked[0] == 4 << 20
    assert 9 << 20 <= sum(asked) <= 16 << 20


@on_the_loop
async def test_waiting_for_room_stops_the_flow_and_the_clock() -> None:
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64):
            writer.write(bytes(1 << 20))
            await writer.drain()
            written += 1

    async def reserve(n_bytes: int) -> None:
        await asyncio.sleep(1.2)
        assert written < 32, "the other side was not slowed down"

    async with serving(pour) as server:
        response = await fetch(server.url(), reserve=reserve, timeout_seconds=1.0, max_bytes=64 << 20)
    assert len(response.body) == 64 << 20


# Surely not sent


@on_the_loop
async def test_a_refused_connection_was_not_sent() -> None:
    error = await raised_by(post(f"http://127.0.0.1:{free_port()}/?{SECRET}"))
    assert isinstance(error, NotSent)
    assert error.host == "127.0.0.1"
    assert "refused" in error.reason.lower()


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
@on_the_loop
async def test_a_name_that_does_not_resolve_was_not_sent(failure: Exception) -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        raise failure

    assert isinstance(await raised_by(post("https://vendor.test/", Transport(resolver=resolve))), NotSent)


@on_the_loop
async def test_a_name_without_addresses_was_not_sent() -> None:
    assert isinstance(await raised_by(post("https://vendor.test/", Transport(resolver=resolving([])))), NotSent)


@on_the_loop
async def test_a_name_that_no_resolver_can_read_was_not_sent() -> None:
    assert isinstance(await raised_by(post(f"https://{'a' * 64}.test/")), NotSent)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that takes no more connections: its queue is full and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


@on_the_loop
async def test_a_connection_that_nobody_accepts_in_time_was_not_sent() -> None:
    with deaf_port() as port:
        error = await raised_by(post(f"http://127.0.0.1:{port}/", Transport(connect_timeout_seconds=0.3)))
        assert isinstance(error, NotSent)
        assert "no connection within 0.3 s" in error.reason
        error = await raised_by(post(f"http://127.0.0.1:{port}/", timeout_seconds=0.3))
        assert isinstance(error, NotSent)


@on_the_loop
async def test_a_resolver_that_hangs_was_not_sent() -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        await asyncio.sleep(60)
        return []

    transport = Transport(resolver=resolve, connect_timeout_seconds=0.1)
    assert isinstance(await raised_by(post("https://vendor.test/", transport)), NotSent)


@on_the_loop
async def test_the_next_address_is_tried_when_one_fails() -> None:
    async with serving() as server:
        transport = Transport(resolver=resolving(["127.0.0.3", "::1", "127.0.0.1"]))
        assert (await post(server.url(host="vendor.test"), transport)).status == 200


@on_the_loop
async def test_a_deaf_address_takes_only_its_share_of_the_time() -> None:
    with deaf_port() as port:
        async with serving(host="127.0.0.2", port=port) as server:
            transport = Transport(resolver=resolving(["127.0.0.1", "127.0.0.2"]), connect_timeout_seconds=1.0)
            assert (await post(server.url(host="vendor.test"), transport)).status == 200


@pytest.mark.parametrize("value", ["Bearer s3cr3t\r\nX-Evil: 1", "Bearer s3cr3t\n", "s3cr3t \N{EURO SIGN}"])
@on_the_loop
async def test_a_header_that_http_does_not_allow_was_not_sent_and_is_not_quoted(value: str) -> None:
    async with serving() as server:
        error = await raised_by(post(server.url(), headers={"Authorization": value}))
    assert isinstance(error, NotSent)
    assert "s3cr3t" not in f"{error} {error!r}"
    assert server.requests == []


# Outcome unknown


async def _drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def _stall_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    await asyncio.sleep(60)


async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:  # never quiet for long: only a bound on the whole call ends this
        writer.write(b"x")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "answer",
    [
        _drop,
        _reset,
        _hang,
        _stall_in_the_body,
        _trickle,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabc",
        b"HTTP/1.1 200 OK\r\nX-Half",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbroken header s3cr3t\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: s3cr3t\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000,
    ],
    ids=[
        *("dropped", "reset", "hanging", "stalled", "trickling", "short of its length", "short of its chunk"),
        *("half a head", "only 1xx", "no HTTP", "bad header", "bad length", "endless head"),
    ],
)
@on_the_loop
async def test_a_call_that_ends_without_a_whole_answer_is_unknown(answer: bytes | Respond) -> None:
    async with serving(answer) as server:
        started_at = time.monotonic()
        url = server.url(f"/p4th?{SECRET}")
        error = await raised_by(post(url, json={}, headers={"X-API-Key": "s3cr3t"}, timeout_seconds=0.4))
    assert isinstance(error, OutcomeUnknown)
    assert len(server.requests) == 1
    assert time.monotonic() - started_at < 2
    assert error.host == "127.0.0.1"
    for word in ("s3cr3t", "p4th", "X-API-Key"):
        assert word not in f"{error} {error!r}"


@on_the_loop
async def test_an_upload_that_breaks_off_is_unknown() -> None:
    async def desert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with serving(desert, reads=False) as server:
        assert isinstance(await raised_by(post(server.url(), content=bytes(20 << 20))), OutcomeUnknown)


# Time and many at once


@on_the_loop
async def test_a_canceled_call_closes_its_connection() -> None:
    async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            assert await reader.read() == b""
        server.left.set()

    async with serving(wait_for_the_end) as server:
        call = asyncio.create_task(post(server.url()))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.left.wait(), 2)


@on_the_loop
async def test_no_call_leaves_a_descriptor_open() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with deaf_port() as port:
        transport = Transport(connect_timeout_seconds=0.1)
        await raised_by(post(f"http://127.0.0.1:{port}/", transport))
        before = descriptors()
        for _ in range(5):
            await raised_by(post(f"http://127.0.0.1:{port}/", transport))
            await raised_by(post(f"http://127.0.0.1:{free_port()}/", transport))
        await asyncio.sleep(0.05)
        assert descriptors() <= before


@on_the_loop
async def test_hundreds_of_slow_calls_run_at_once() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)
        writer.write(OK)

    async with serving(slowly) as server:
        transport = Transport()
        started_at = time.monotonic()
        answers = await asyncio.gather(*(post(server.url(f"/{n}"), transport, json={"n": n}) for n in range(300)))
        assert time.monotonic() - started_at < 4
    assert {answer.status for answer in answers} == {200}
    assert {request.line for request in server.requests} == {f"POST /{n} HTTP/1.1" for n in range(300)}


@on_the_loop
async def test_calls_that_ask_for_a_name_at_the_same_moment_share_its_lookup() -> None:
    lookups = 0

    async def resolve(host: str, port: int) -> Sequence[Address]:
        nonlocal lookups
        lookups += 1
        await asyncio.sleep(0.05)
        return [ip_address("127.0.0.1")]

    async with serving() as server:
        transport = Transport(resolver=resolve)
        calls = [asyncio.create_task(post(server.url(host="vendor.test"), transport)) for _ in range(20)]
        await asyncio.sleep(0.01)
        calls[0].cancel()  # takes nobody else's lookup away
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] + [Response] * 19
        assert lookups == 1
        await post(server.url(host="vendor.test"), transport)
        assert lookups == 2, "nothing is cached"


# Where it may go


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f000001", "localhost", "[::1]", "[::ffff:127.0.0.1]"],
)
@on_the_loop
async def test_a_guarded_url_reaches_no_private_address_however_it_is_spelled(host: str) -> None:
    async with serving() as server:
        for scheme in ("http", "https"):
            url = server.url(host=host, scheme=scheme)
            error = await raised_by(fetch(url, Transport()))
            assert isinstance(error, ForbiddenAddress)
            assert "loopback" in error.reason
            assert isinstance(await raised_by(post(url, guarded=True)), ForbiddenAddress)
    assert server.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:7f00:1::]/",
        "https://0/",
        "https://255.255.255.255/",
    ],
)
@on_the_loop
async def test_metadata_and_special_addresses_are_forbidden(url: str) -> None:
    assert isinstance(await raised_by(fetch(url, Transport())), ForbiddenAddress)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//127.0.0.1/",
        "http:/127.0.0.1/",
        "http://",
        "http://user:s3cr3t@127.0.0.1/",
        "http://cdn.test\\@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:x/",
        "http://127.0.0.1%2f/",
        "http://\N{FULLWIDTH DIGIT ONE}27.0.0.1/",
        "http://[fe80::1%25eth0]/",
        "http://127.0.0.1\n.test/",
        " http://127.0.0.1/",
        "http://127.0.0.1/\ud800",
    ],
)
@on_the_loop
async def test_what_is_no_plain_http_url_is_refused_and_not_quoted(url: str) -> None:
    for call in (post, fetch):
        error = await raised_by(call(url))
        assert isinstance(error, ForbiddenAddress)
        assert "s3cr3t" not in f"{error} {error!r}"


@on_the_loop
async def test_a_trailing_dot_gets_nobody_in() -> None:
    async with serving() as server:
        for host in ("localhost.", "127.0.0.1."):
            transport = Transport(connect_timeout_seconds=2)
            assert isinstance(await raised_by(fetch(server.url(host=host), transport)), NotSent)
    assert server.connections == 0


@on_the_loop
async def test_an_allowed_network_is_reached_by_plain_http_too() -> None:
    async with serving() as server:
        transport = Transport(allowed_networks=LOOPBACK)
        assert (await fetch(server.url(), transport)).status == 200
        assert (await post(server.url(), transport, guarded=True)).status == 200


@on_the_loop
async def test_a_public_address_is_not_spoken_to_by_plain_http() -> None:
    transport = Transport(resolver=resolving(["93.184.215.14"]), allowed_networks=LOOPBACK)
    error = await raised_by(fetch("http://cdn.test/", transport))
    assert isinstance(error, ForbiddenAddress)
    assert "plain http" in error.reason


@on_the_loop
async def test_a_name_with_a_public_and_a_private_address_is_refused() -> None:
    for answer in (["93.184.215.14", "127.0.0.2"], ["127.0.0.2", "93.184.215.14"]):
        error = await raised_by(fetch("https://cdn.test/", Transport(resolver=resolving(answer))))
        assert isinstance(error, ForbiddenAddress)


@on_the_loop
async def test_a_name_is_resolved_once_and_the_judged_address_is_used() -> None:
    async with serving() as good, serving(host="127.0.0.2", port=good.port) as bad:
        transport = Transport(resolver=resolving(["127.0.0.1"], ["127.0.0.2"]), allowed_networks=LOOPBACK)
        assert (await fetch(good.url(host="rebinding.test"), transport)).status == 200
        assert (good.connections, bad.connections) == (1, 0)
        assert isinstance(await raised_by(fetch(good.url(host="rebinding.test"), transport)), ForbiddenAddress)
        assert (good.connections, bad.connections) == (1, 0)
    assert good.requests[0].header("Host") == f"rebinding.test:{good.port}"


@on_the_loop
async def test_the_operators_own_addresses_are_not_guarded() -> None:
    async with serving() as server:
        assert (await post(server.url(host="localhost"))).status == 200


# Redirects


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 99999999\r\n\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@on_the_loop
async def test_a_download_follows_a_redirect_byte_for_byte_without_reading_its_body(status: int) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\nimage") as image:
        async with serving(redirect(image.url("/a%3A/../b?sig=%3D+'#f"), status)) as server:
            assert (await fetch(server.url())).body == b"image"
        assert image.requests[0].line == "GET /a%3A/../b?sig=%3D+' HTTP/1.1"
        assert image.requests[0].header("Accept") == "*/*"


@on_the_loop
async def test_a_relative_redirect_stays_with_its_host() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = len(server.requests) == 1
        writer.write(redirect("../c?x=%3A") if first else b"HTTP/1.1 200 OK\r\n\r\nimage")

    async with serving(answer) as server:
        assert (await fetch(server.url("/a/b/file"))).body == b"image"
    assert [request.line for request in server.requests] == ["GET /a/b/file HTTP/1.1", "GET /a/c?x=%3A HTTP/1.1"]


@on_the_loop
async def test_three_redirects_are_followed_and_no_fourth() -> None:
    async with serving(redirect("/again")) as server:
        with pytest.raises(TooManyRedirects, match="more than 3 times"):
            await fetch(server.url())
    assert server.connections == 4


@on_the_loop
async def test_a_redirect_to_a_forbidden_address_or_scheme_is_not_followed() -> None:
    async with serving(host="127.0.0.2") as private:
        for location in (
            private.url(host="127.0.0.2"),
            "http://169.254.169.254/",
            "ftp://127.0.0.1/",
            "file:///etc",
            "https://[",
        ):
            async with serving(redirect(location)) as server:
                assert isinstance(await raised_by(fetch(server.url())), ForbiddenAddress)
    assert private.connections == 0


@on_the_loop
async def test_a_redirect_without_a_location_is_the_answer() -> None:
    async with serving(b"HTTP/1.1 304 Not Modified\r\n\r\n") as server:
        assert (await fetch(server.url())).status == 304


@on_the_loop
async def test_the_time_of_a_download_is_that_of_all_its_hops() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(redirect("/again"))

    async with serving(slowly) as server:
        assert isinstance(await raised_by(fetch(server.url(), timeout_seconds=0.5)), OutcomeUnknown)
    assert server.connections == 2


# TLS


@dataclass(frozen=True)
class Tls:
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A server's context for `provider.test` and 127.0.0.1, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vendor.test")])
    names = x509.SubjectAlternativeName([x509.DNSName("vendor.test"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "vendor.pem"
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *private) + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return Tls(server, ssl.create_default_context(cafile=str(pem)))


@on_the_loop
async def test_tls_is_spoken_to_the_name_at_the_judged_address(tls: Tls) -> None:
    asked_for: list[str | None] = []
    tls.server.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    body = bytes(3 << 20)
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body, tls=tls.server) as server:
        transport = Transport(resolver=resolving(["127.0.0.1"]), allowed_networks=LOOPBACK, ssl_context=tls.client)
        response = await fetch(server.url("/x", host="vendor.test", scheme="https"), transport, max_bytes=4 << 20)
        assert len(response.body) == 3 << 20
        literal = Transport(ssl_context=tls.client)
        assert (await post(server.url(scheme="https"), literal, content=body, max_bytes=4 << 20)).status == 200
    assert asked_for[0] == "vendor.test"
    assert server.requests[0].header("Host") == f"vendor.test:{server.port}"


@on_the_loop
async def test_a_certificate_that_is_not_trusted_was_not_sent(tls: Tls) -> None:
    async with serving(tls=tls.server) as server:
        error = await raised_by(post(server.url(scheme="https"), Transport()))
        assert isinstance(error, NotSent)
        assert "certificate" in error.reason.lower()
        wrong_name = Transport(resolver=resolving(["127.0.0.1"]), ssl_context=tls.client)
        assert isinstance(await raised_by(post(server.url(host="other.test", scheme="https"), wrong_name)), NotSent)
    assert server.requests == []


@on_the_loop
async def test_a_handshake_that_fails_or_hangs_was_not_sent() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    async def talk_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    for behavior in (hang_up, _hang, talk_plainly):
        async with serving(behavior, reads=False) as server:
            transport = Transport(connect_timeout_seconds=0.3)
            assert isinstance(await raised_by(post(server.url(scheme="https"), transport)), NotSent)


@on_the_loop
async def test_an_answer_cut_short_under_tls_is_unknown(tls: Tls) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", tls=tls.server) as server:
        error = await raised_by(post(server.url(scheme="https"), Transport(ssl_context=tls.client)))
    assert isinstance(error, OutcomeUnknown)
