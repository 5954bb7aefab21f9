"""What providers really send: answers that break HTTP, over real sockets, and what is read from them."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
import zlib
from collections.abc import Mapping

import pytest
from raw_server import LOOPBACK, Respond, fetch, on_the_loop, post, raised_by, serving

from jobs.providers._contract import Response
from worker.transport import CutShort, OutcomeUnknown, TooLarge, Transport, TransportError

JSON = (
    b'{"data": [{"url": "https://pictures.example.com/a.png?sig=a%2Bb%3D", "b64_json": null, "request_id": "rsid-1", '
    b'"content_violation": false}], "meta": null}'
)
LENGTH = len(JSON)
CHUNK = b"%x\r\n%b\r\n" % (LENGTH, JSON)
DEFLATED = zlib.compress(JSON, wbits=-15)


def answer(*headers: str, body: bytes = JSON, status_line: str = "HTTP/1.1 200 OK", newline: str = "\r\n") -> bytes:
    lines = [status_line, "Content-Type: application/json", *headers, "", ""]
    return newline.join(lines).encode("latin-1") + body


def sized(*headers: str, body: bytes = JSON, **options: str) -> bytes:
    return answer(*headers, f"Content-Length: {len(body)}", body=body, **options)


ANSWERS: Mapping[str, bytes] = {
    # as gateways were seen to send them
    "a header name with a space": sized("X Request Id: 1"),
    "Transfer-Encoding: identity": sized("Transfer-Encoding: identity"),
    "Transfer-Encoding twice": answer(*["Transfer-Encoding: chunked"] * 2, body=CHUNK + b"0\r\n\r\n"),
    "Content-Length two too large": answer(f"Content-Length: {LENGTH + 2}"),
    "last chunk missing": answer("Transfer-Encoding: chunked", body=CHUNK),
    "raw deflate": sized("Content-Encoding: deflate", body=DEFLATED),
    # their relatives
    "bare newlines": sized(newline="\n"),
    "bare newlines in chunks": answer(
        "Transfer-Encoding: chunked", body=CHUNK.replace(b"\r", b"") + b"0\n\n", newline="\n"
    ),
    "leading empty lines": b"\r\n\r\n" + sized(),
    "no reason phrase": sized(status_line="HTTP/1.1 200"),
    "a status line of HTTP/2": sized(status_line="HTTP/2 200"),
    "HTTP/1.0 without a length": answer(status_line="HTTP/1.0 200 OK"),
    "a folded header": sized("X-Trace: a", "  b"),
    "a space before a colon": answer(f"Content-Length : {LENGTH}"),
    "a header name with other characters": sized("X(Model): 1", "X-Größe: 2"),
    "Latin-1 in a header": sized("X-Model: Größe"),
    "a control character in a header": sized("X-Model: a\x00b\x07"),
    "Content-Length twice": sized(f"Content-Length: {LENGTH}"),
    "Content-Length twice, and different": sized("Content-Length: 3"),
    "Content-Length of -1": answer("Content-Length: -1"),
    "Content-Length two too small": answer(f"Content-Length: {LENGTH - 2}"),
    "Content-Length and chunks": answer("Transfer-Encoding: chunked", "Content-Length: 3", body=CHUNK + b"0\r\n\r\n"),
    "chunk extensions": answer("Transfer-Encoding: chunked", body=b"%x;a=b \r\n%b\r\n0;c\r\n\r\n" % (LENGTH, JSON)),
    "a trailer": answer("Transfer-Encoding: chunked", body=CHUNK + b"0\r\nX-Sum: 1\r\n\r\n"),
    "chunks that end in a page": answer("Transfer-Encoding: chunked", body=CHUNK + b"<p>Error</p>\r\n"),
    "cut within the last chunk's line": answer("Transfer-Encoding: chunked", body=CHUNK + b"0"),
    "a chunk longer than what comes": answer("Transfer-Encoding: chunked", body=b"fff\r\n" + JSON),
    "chunked, but without chunks": answer("Transfer-Encoding: chunked"),
    "Transfer-Encoding: utf-8": answer("Transfer-Encoding: utf-8"),
    "a header line without a colon": sized("Warning in line 3"),
    "interim answers": b"HTTP/1.1 100\r\n\r\nHTTP/1.1 102 Processing\r\nX Y: 1\r\n\r\n" + sized(),
    "Content-Encoding: utf-8": sized("Content-Encoding: utf-8"),
    "Content-Encoding: br, but plain": sized("Content-Encoding: br"),
    "Content-Encoding: gzip, but plain": sized("Content-Encoding: gzip"),
    "gzip without its end": sized("Content-Encoding: gzip", body=gzip.compress(JSON)[:-8]),
    "gzip in two parts": sized("Content-Encoding: gzip", body=gzip.compress(JSON[:9]) + gzip.compress(JSON[9:])),
    "gzip in deflate": sized("Content-Encoding: deflate, gzip", body=gzip.compress(DEFLATED)),
    "gzip with Content-Length two too large": answer(
        "Content-Encoding: gzip", f"Content-Length: {len(gzip.compress(JSON)) + 2}", body=gzip.compress(JSON)
    ),
}


@pytest.mark.parametrize("sent", ANSWERS.values(), ids=ANSWERS)
@on_the_loop
async def test_the_json_of_a_broken_answer_is_read_to_its_last_byte(sent: bytes) -> None:
    async with serving(sent) as server:
        response = await post(server.url())
    assert (response.status, response.body) == (200, JSON)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("sent", ANSWERS.values(), ids=ANSWERS)
@on_the_loop
async def test_the_same_answer_cut_inside_its_json_is_never_read_as_a_whole_one(sent: bytes) -> None:
    compressed = b"\r\nContent-Encoding" in sent and JSON not in sent
    end = len(sent) - 20 if compressed else sent.index(JSON[:2]) + LENGTH
    for missing in (1, 2, 40):
        async with serving(sent[: end - missing]) as server:
            try:
                response = await post(server.url())
            except OutcomeUnknown:
                continue
        # A body to the end of its connection, or to its own length, is what it is; its parser sees that it is not whole.
        assert response.document() is None


@on_the_loop
async def test_any_status_of_a_cut_answer_counts_with_a_whole_body_only() -> None:
    for status in (400, 402, 429, 500, 503):
        line = f"HTTP/1.1 {status} X"
        async with serving(answer("Content-Length: 1000", body=b'{"error": "no"}', status_line=line)) as server:
            assert (await post(server.url())).status == status
        for body in (b"", b'{"error": "no"', b"no", b"null", b"12"):
            async with serving(answer("Content-Length: 1000", body=body, status_line=line)) as server:
                error = await raised_by(post(server.url()))
            assert isinstance(error, CutShort)
            assert error.response.status == status


def reset_after(sent: bytes) -> Respond:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return respond


def silent_after(sent: bytes) -> Respond:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await asyncio.sleep(60)

    return respond


@pytest.mark.parametrize("behind", [reset_after, silent_after])
@on_the_loop
async def test_a_whole_answer_is_read_though_the_connection_breaks_or_hangs_behind_it(behind: object) -> None:
    for headers in (f"Content-Length: {LENGTH + 2}", "X-Until: the end"):
        async with serving(behind(answer(headers))) as server:  # type: ignore[operator]
            assert (await post(server.url(), timeout_seconds=0.5)).body == JSON
        async with serving(behind(answer(headers, body=JSON[:-1]))) as server:  # type: ignore[operator]
            assert isinstance(await raised_by(post(server.url(), timeout_seconds=0.5)), OutcomeUnknown)


@on_the_loop
async def test_a_large_answer_that_was_cut_behind_its_json_is_read() -> None:
    body = b'{"image": "' + b"A" * (3 << 20) + b'"}'
    async with serving(answer(f"Content-Length: {len(body) + 2}", body=body)) as server:
        assert (await post(server.url(), max_bytes=4 << 20)).body == body
    async with serving(answer(f"Content-Length: {len(body)}", body=body[:-1])) as server:
        assert isinstance(await raised_by(post(server.url(), max_bytes=4 << 20)), CutShort)


@on_the_loop
async def test_what_follows_a_body_that_is_whole_is_ignored() -> None:
    for sent in (sized() + b'{"other": 1}', sized(body=b"[]") + b"]"):
        async with serving(sent) as server:
            assert (await post(server.url())).body in {JSON, b"[]"}


# Files


IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


@pytest.mark.parametrize(
    "sent",
    [
        answer(f"Content-Length: {len(IMAGE) + 2}", body=IMAGE),
        answer("Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n" % (len(IMAGE), IMAGE)),
        answer("Transfer-Encoding: chunked", body=IMAGE),
        answer("Content-Length: undefined", body=IMAGE),
        sized("Content-Encoding: gzip", body=gzip.compress(IMAGE)[:-8]),
    ],
    ids=["short of its length", "last chunk missing", "not chunked", "no length", "gzip without its end"],
)
@on_the_loop
async def test_a_file_that_may_be_cut_is_not_taken_as_whole_but_is_not_lost(sent: bytes) -> None:
    async with serving(sent) as server:
        error = await raised_by(fetch(server.url()))
    assert isinstance(error, CutShort)
    assert (error.response.status, error.response.body) == (200, IMAGE)


@on_the_loop
async def test_json_is_no_proof_for_a_file() -> None:
    async with serving(ANSWERS["Content-Length two too large"]) as server:
        assert isinstance(await raised_by(fetch(server.url())), CutShort)


@pytest.mark.parametrize("coding", ["utf-8", "br", "gzip", "aws-chunked", "image/png"])
@on_the_loop
async def test_a_file_that_is_not_encoded_is_taken_as_it_is_whatever_its_header_says(coding: str) -> None:
    async with serving(sized(f"Content-Encoding: {coding}", body=IMAGE)) as server:
        assert (await fetch(server.url())).body == IMAGE


@on_the_loop
async def test_a_file_to_the_end_of_the_connection_is_whole_unless_that_broke() -> None:
    async with serving(answer(body=IMAGE)) as server:
        assert (await fetch(server.url())).body == IMAGE
    async with serving(reset_after(answer(body=IMAGE))) as server:
        assert isinstance(await raised_by(fetch(server.url())), CutShort)
    async with serving(silent_after(answer(body=IMAGE))) as server:
        error = await raised_by(fetch(server.url(), timeout_seconds=0.3))
        assert type(error) is OutcomeUnknown, "it is fetched again for as long as its URL works"


# Any bytes


PIECES = [
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n",
        b"HTTP/1.0 500\n",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b": ",
        b"\0",
        b" ",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 9\r\n",
        b"Content-Length: 99999999999\r\n",
        b"Content-Length: -\r\n",
    ),
    *(b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n", b"Location: http://[\r\n", b"Location: ///\r\n"),
    *(
        b"2\r\n{}\r\n",
        b"0\r\n\r\n",
        b"fffffffffffffff\r\n",
        JSON,
        DEFLATED,
        gzip.compress(bytes(100_000)),
        b"\xff" * 999,
    ),
]


def babbling(chance: random.Random) -> Respond:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if chance.random() < 0.7:
            writer.write(b"HTTP/1.1 %d OK\r\n" % chance.choice([200, 200, 302, 404, 503]))
        for _ in range(chance.randrange(20)):
            writer.write(chance.choice(PIECES) if chance.random() < 0.9 else chance.randbytes(chance.randrange(2000)))
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            await asyncio.sleep(60)
        if chance.random() < 0.2:
            writer.transport.abort()

    return babble


@pytest.mark.parametrize("seed", range(40))
@on_the_loop
async def test_whatever_a_server_sends_a_call_ends_with_an_answer_or_one_of_our_errors(seed: int) -> None:
    bounds = {"timeout_seconds": 0.3, "max_bytes": 50_000}
    transport = Transport(allowed_networks=LOOPBACK)
    async with serving(babbling(random.Random(seed))) as server:
        calls = [call(server.url(), transport, **bounds) for call in (post, fetch) for _ in range(5)]
        ends = [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]
    transport.close()
    for end in ends:
        assert isinstance(end, Response | TransportError)
        assert isinstance(end, TransportError) or len(end.body) <= 50_000


@on_the_loop
async def test_a_body_that_grows_when_it_is_unpacked_is_bounded_in_each_coding() -> None:
    bomb = zlib.compress(bytes(50 << 20), level=9, wbits=-15)
    twice = gzip.compress(bomb)
    for coding, body in (("deflate", bomb), ("deflate, gzip", twice), ("gzip", gzip.compress(bytes(900_000)) * 2)):
        for call in (post, fetch):
            async with serving(sized(f"Content-Encoding: {coding}", body=body)) as server:
                assert isinstance(await raised_by(call(server.url())), TooLarge)
