"""A raw HTTP server for tests of the transport: it writes whatever bytes it is given, and records what it was asked."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import uvloop

from jobs.address_guard import Address
from jobs.providers._contract import Response
from worker.transport import Transport, TransportError

LOOPBACK = [ip_network("127.0.0.1/32")]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Recorded:
    """One request as its bytes were."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        (value,) = [value for key, value in self.headers if key.lower() == name.lower()]
        return value


Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A raw server: `answer` is written after each request, or a function takes over once the request was read."""

    answer: bytes | Respond = OK
    #: False: the function reads for itself
    reads: bool = True
    port: int = 0
    connections: int = 0
    requests: list[Recorded] = field(default_factory=list)
    #: set once a client has closed its side
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, target: str = "/", *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{target}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.reads:
                self.requests.append(await recorded(reader))
            if callable(self.answer):
                await self.answer(reader, writer)
            else:
                writer.write(self.answer)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, as some are meant to, or the test is over
        finally:
            writer.transport.abort()


async def recorded(reader: asyncio.StreamReader) -> Recorded:
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = [(name, value) for name, _, value in (text.partition(": ") for text in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Recorded(line, headers, await reader.readexactly(length))


@asynccontextmanager
async def listening(
    serve: Respond, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve connections until the end of the block, and give the port."""
    server = await asyncio.start_server(serve, host, port, ssl=tls, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@asynccontextmanager
async def serving(
    answer: bytes | Respond = OK,
    *,
    reads: bool = True,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    server = Server(answer, reads)
    async with listening(server.serve, host=host, port=port, tls=tls) as server.port:
        yield server


def on_the_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on uvloop, as the worker does."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def resolving(*answers: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[Address]]]:
    """A resolver that gives one answer after the other."""
    left = iter(answers)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [ip_address(text) for text in next(left)]

    return resolve


async def post(url: str, transport: Transport | None = None, **options: Any) -> Response:
    bounds = {"timeout_seconds": 5.0, "max_bytes": 1 << 20}
    return await (transport or Transport()).send("POST", url, **{**bounds, **options})


async def fetch(url: str, transport: Transport | None = None, **options: Any) -> Response:
    bounds = {"timeout_seconds": 5.0, "max_bytes": 1 << 20}
    return await (transport or Transport(allowed_networks=LOOPBACK)).download(url, **{**bounds, **options})


async def raised_by(call: Awaitable[Any]) -> TransportError:
    with pytest.raises(TransportError) as raised:
        await call
    return raised.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
