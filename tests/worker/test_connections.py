"""Which requests share a connection, and what happens when the other side has closed it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

import pytest
import raw_server
from raw_server import LOOPBACK, Recorded, free_port, on_the_loop, post, raised_by, recorded, resolving, serving

from worker.http.connections import MAX_IDLE_PER_HOST
from worker.transport import ForbiddenAddress, NotSent, OutcomeUnknown, Transport

IMAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage"
Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


#: a download that may use a connection again
fetch = functools.partial(raw_server.fetch, reuses=True)


class Keeping:
    """Answers one request after the other on each connection, and counts both."""

    def __init__(self, answer: bytes = IMAGE, *, then: Step | None = None) -> None:
        self.answer = answer
        #: what is done after an answer
        self.then = then
        self.requests: list[tuple[int, Recorded]] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        while not reader.at_eof():
            self.requests.append((number, await recorded(reader)))
            writer.write(self.answer)
            if self.then is not None:
                await self.then(reader, writer)


def a_transport() -> Transport:
    return Transport(allowed_networks=LOOPBACK)


@on_the_loop
async def test_downloads_and_repeatable_requests_use_a_connection_again() -> None:
    server = Keeping()
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        for _ in range(3):
            assert (await fetch(raw.url("/a"), transport)).body == b"image"
            assert (await post(raw.url("/b"), transport, content=b"x", repeatable=True, guarded=True)).body == b"image"
        transport.close()
    assert server.connections == 1
    assert len(server.requests) == 6
    assert all("connection" not in dict(request.headers) for _, request in server.requests)


@on_the_loop
async def test_a_submission_neither_takes_nor_leaves_a_connection() -> None:
    server = Keeping()
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        await fetch(raw.url(), transport)
        for _ in range(3):
            await post(raw.url(), transport, json={}, guarded=True)
        await fetch(raw.url(), transport)
        transport.close()
    assert [number for number, _ in server.requests] == [1, 2, 3, 4, 1]
    assert [request.header("Connection") for number, request in server.requests if number > 1] == ["close"] * 3


@on_the_loop
async def test_requests_at_once_have_connections_of_their_own() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)

    server = Keeping(then=wait)
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        for _ in range(3):
            answers = await asyncio.gather(*(fetch(raw.url(f"/{n}"), transport) for n in range(10)))
            assert {answer.body for answer in answers} == {b"image"}
        transport.close()
    assert server.connections <= 20
    assert len(server.requests) == 30


@pytest.mark.parametrize(
    "answer",
    [
        IMAGE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
        IMAGE.replace(b"1.1", b"1.0"),
        IMAGE + b"surplus",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nimage\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nimage\r\n0\r\nX: 1\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "surplus", "two lengths", "trailer"],
)
@on_the_loop
async def test_a_connection_whose_answer_is_not_exact_is_closed(answer: bytes) -> None:
    server = Keeping(answer)
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        for _ in range(2):
            assert (await fetch(raw.url(), transport)).body == b"image"
        transport.close()
    assert server.connections == 2


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    writer.close()


@on_the_loop
async def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    server = Keeping(then=_close)
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        for _ in range(3):
            assert (await fetch(raw.url(), transport)).body == b"image"
            await asyncio.sleep(0.05)
        transport.close()
    assert server.connections == 3


@on_the_loop
async def test_a_request_that_meets_a_closing_connection_goes_out_again_on_a_new_one() -> None:
    async def close_at_the_next_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await recorded(reader)
        writer.transport.abort()

    server = Keeping(then=close_at_the_next_request)
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        for _ in range(3):
            assert (await fetch(raw.url(), transport)).body == b"image"
        put = await transport.send(
            "PUT", raw.url(), content=bytes(1000), repeatable=True, guarded=True, timeout_seconds=5, max_bytes=100
        )
        assert put.body == b"image"
        transport.close()
    assert server.connections == 4


@on_the_loop
async def test_a_request_whose_answer_has_begun_does_not_go_out_again() -> None:
    async def break_the_next_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await recorded(reader)
        writer.write(IMAGE[:-3])
        writer.close()

    server = Keeping(then=break_the_next_answer)
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        await fetch(raw.url(), transport)
        assert isinstance(await raised_by(fetch(raw.url(), transport)), OutcomeUnknown)
        transport.close()
    assert server.connections == 1


@on_the_loop
async def test_a_server_that_is_gone_since_was_not_sent_to() -> None:
    port = free_port()
    transport = a_transport()
    async with serving(Keeping(), reads=False, port=port) as raw:
        await fetch(raw.url(), transport)
    await asyncio.sleep(0.05)
    assert isinstance(await raised_by(fetch(raw.url(), transport)), NotSent)
    transport.close()


@on_the_loop
async def test_words_that_nobody_asked_for_are_never_the_answer_to_the_next_request() -> None:
    async def add_another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    server = Keeping(then=add_another)
    async with serving(server, reads=False) as raw:
        transport = a_transport()
        for _ in range(3):
            assert (await fetch(raw.url(), transport)).body == b"image"
            await asyncio.sleep(0.1)
        transport.close()
    assert server.connections == 3


@on_the_loop
async def test_a_guarded_request_takes_no_connection_whose_address_was_not_checked() -> None:
    server = Keeping()
    async with serving(server, reads=False) as raw:
        transport = Transport(resolver=resolving(*[["127.0.0.1"]] * 2))
        assert (await post(raw.url(host="store.test"), transport, repeatable=True)).status == 200
        error = await raised_by(fetch(raw.url(host="store.test"), transport))
        assert isinstance(error, ForbiddenAddress)
        transport.close()
    assert len(server.requests) == 1


@on_the_loop
async def test_a_connection_serves_its_own_host_and_port_only() -> None:
    first, second = Keeping(), Keeping()
    async with serving(first, reads=False) as one, serving(second, reads=False) as other:
        transport = Transport(resolver=resolving(*[["127.0.0.1"]] * 2), allowed_networks=LOOPBACK)
        for url in (
            one.url(),
            other.url(),
            one.url(host="a.test"),
            one.url(host="b.test"),
            one.url(),
            one.url(host="a.test"),
        ):
            await fetch(url, transport)
        transport.close()
    assert [number for number, _ in first.requests] == [1, 2, 3, 1, 2]
    assert len(second.requests) == 1


@on_the_loop
async def test_unused_connections_are_bounded_and_closed_in_time() -> None:
    arrived, closed = 0, asyncio.Semaphore(0)
    all_arrived = asyncio.Event()

    async def answer_together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await recorded(reader)
        arrived += 1
        if arrived == MAX_IDLE_PER_HOST + 10:
            all_arrived.set()
        await all_arrived.wait()
        writer.write(IMAGE)
        assert await reader.read() == b""
        closed.release()

    async with serving(answer_together, reads=False) as raw:
        transport = Transport(allowed_networks=LOOPBACK, idle_seconds=1.0)
        await asyncio.gather(*(fetch(raw.url(), transport) for _ in range(MAX_IDLE_PER_HOST + 10)))
        async with asyncio.timeout(30):
            for _ in range(MAX_IDLE_PER_HOST + 10):
                await closed.acquire()


@on_the_loop
async def test_an_early_refusal_of_an_upload_ends_its_connection() -> None:
    """What is left of the body would be read as the next request."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(60)

    async with serving(refuse, reads=False) as raw:
        transport = a_transport()
        for _ in range(2):
            answer = await transport.send(
                "PUT", raw.url(), content=bytes(20 << 20), repeatable=True, timeout_seconds=5, max_bytes=100
            )
            assert answer.status == 412
        transport.close()
    assert raw.connections == 2
