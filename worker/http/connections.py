"""Opens connections, and decides where they may lead.

A host is resolved once, all its addresses are checked (`jobs.address_guard`), and a checked address is connected to. Until a byte
of a request was written to an open connection, it was surely not sent; so every failure in here is `NotSent`.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import cast

import httpx

from jobs.address_guard import Address, AddressGuard, NonPublicAddress, Resolver

from .answers import AnswerReader
from .errors import ForbiddenAddress, NotSent, os_reason
from .requests import Request, Target

#: how many unused connections are kept, to one host and in all
MAX_IDLE_PER_HOST, MAX_IDLE = 64, 256
#: how much of a body is written before the other side's pace is looked at, in bytes
_PIECE_BYTES = 1 << 20

#: connections of one kind serve the same requests: scheme, host, port, and whether the address was checked
_Key = tuple[str, str, int, bool]


class Connection(asyncio.Protocol):
    """An open connection: writes requests, and feeds an `AnswerReader` with what comes."""

    __slots__ = (
        "_expiry",
        "_loop",
        "_paused",
        "_transport",
        "_waiter",
        "_writable",
        "_written",
        "error",
        "key",
        "lost",
        "reader",
        "wrote",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, key: _Key) -> None:
        self.key = key
        self.reader = AnswerReader()
        #: False: surely no byte of the request was sent
        self.wrote = False
        #: whether the other side has closed it, or it broke
        self.lost = False
        #: why it broke
        self.error: str | None = None
        self._loop = loop
        self._paused = False
        self._writable = True
        self._written = False
        self._waiter: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    # --- called by the event loop ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._expiry is not None:  # nothing was asked
            self.close()
            return
        reader = self.reader
        reader.feed(data)
        if reader.has_news:
            if not self._paused and not reader.done:
                self._paused = True
                self._transport.pause_reading()
            self._wake()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    def _end(self, error: Exception | None) -> None:
        if error is not None:
            self.error = self.error or os_reason(error)
        self.lost = True
        self.reader.end(cleanly=error is None)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- called by an exchange ------------------------------------------------------------------------------------

    async def write(self, request: Request) -> None:
        """Write a request, at the pace of the other side, unless the answer comes before the end."""
        if self.lost or self._transport.is_closing():
            self._end(None)
            return
        self.reader.bodiless = request.method == "HEAD"
        self.wrote = True
        pieces: list[bytes | memoryview] = [request.head]
        for part in request.body:
            if len(part) <= _PIECE_BYTES:
                pieces.append(part)
            else:
                view = memoryview(part)
                pieces.extend(view[start : start + _PIECE_BYTES] for start in range(0, len(part), _PIECE_BYTES))
        self._transport.writelines(pieces[:2])
        for piece in pieces[2:]:
            while not (self._writable or self.lost or self.reader.done):
                await self._news()
            if self.lost or self.reader.done:
                return
            self._transport.write(piece)
        self._written = True

    async def news(self) -> None:
        """Wait until the answer is done, or more of it is to be allowed."""
        while not (self.reader.has_news or self.lost):
            await self._news()

    async def _news(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def allow(self, size: int) -> None:
        """Read the answer's body up to this size."""
        self.reader.allowed = size
        if self._paused and not self.reader.has_news:
            self._paused = False
            self._transport.resume_reading()

    # --- while it is idle -----------------------------------------------------------------------------------------

    def rest(self, seconds: float, expire: Callable[[Connection], None]) -> None:
        """Wait for another request; `expire` is called if none comes in time."""
        self._expiry = self._loop.call_later(seconds, expire, self)

    def resume(self) -> None:
        """Be ready for another request."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.reader, self.wrote, self._written = AnswerReader(), False, False

    @property
    def is_open(self) -> bool:
        """Whether another request may be written."""
        return not (self.lost or self._transport.is_closing())

    @property
    def is_at_rest(self) -> bool:
        """Whether the request was written to its end, and the answer was read to its end."""
        written = self._written and self._transport.get_write_buffer_size() == 0
        return self.is_open and written and not self._paused and self.reader.ends_cleanly

    @property
    def was_stale(self) -> bool:
        """Whether it ended before any byte of an answer: the other side had closed it already, most likely."""
        return self.lost and self.reader.pieces == 0

    def close(self) -> None:
        """End the connection now: nothing is left to flush, so no time is spent on closing gracefully."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._transport.abort()


class Connections:
    """Opens connections for one process, from one event loop, and keeps the unused ones for a while."""

    def __init__(
        self,
        guard: AddressGuard,
        connect_timeout_seconds: float,
        resolver: Resolver,
        ssl_context: ssl.SSLContext | None,
        idle_seconds: float,
    ) -> None:
        self._guard = guard
        self._connect_timeout_seconds = connect_timeout_seconds
        self._resolver = resolver
        self._ssl_context = ssl_context or _ssl_context()
        self._idle_seconds = idle_seconds
        self._lookups: dict[tuple[str, int], asyncio.Future[Sequence[Address]]] = {}
        self._idle: dict[_Key, list[Connection]] = {}

    async def open(self, target: Target, *, guarded: bool) -> Connection:
        """Open a connection, TLS included, to a checked address. Raises NotSent and ForbiddenAddress."""
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                addresses = await self._resolve(target)
                if guarded:
                    self._check(target, addresses)
                return await self._open_first(target, addresses, guarded=guarded)
        except NonPublicAddress as error:
            raise ForbiddenAddress(target.host, str(error)) from None
        except TimeoutError:
            raise NotSent(target.host, f"no connection within {self._connect_timeout_seconds:g} s") from None
        except (OSError, UnicodeError) as error:
            raise NotSent(target.host, f"cannot connect ({os_reason(error)})") from None

    def take_idle(self, target: Target, *, guarded: bool) -> Connection | None:
        """Return an unused open connection, if there is one. Its address was checked when it was opened."""
        while idle := self._idle.get(_key(target, guarded)):
            connection = idle[-1]
            self._forget(connection)
            if connection.is_open:
                connection.resume()
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a connection for another request, if it can serve one."""
        idle = self._idle.get(connection.key, [])
        full = len(idle) >= MAX_IDLE_PER_HOST or sum(map(len, self._idle.values())) >= MAX_IDLE
        if full or not connection.is_at_rest:
            connection.close()
            return
        idle.append(connection)
        self._idle[connection.key] = idle
        connection.rest(self._idle_seconds, self._expire)

    def close(self) -> None:
        """Close the unused connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def _expire(self, connection: Connection) -> None:
        self._forget(connection)
        connection.close()

    def _forget(self, connection: Connection) -> None:
        idle = self._idle[connection.key]
        idle.remove(connection)
        if not idle:
            del self._idle[connection.key]

    def _check(self, target: Target, addresses: Sequence[Address]) -> None:
        self._guard.check(addresses)
        if target.scheme != "https" and not all(map(self._guard.is_allowed, addresses)):
            said = "plain http is only allowed within DARKROOM_ALLOWED_PRIVATE_NETWORKS"
            raise ForbiddenAddress(target.host, said)

    async def _resolve(self, target: Target) -> Sequence[Address]:
        """Resolve the host. Concurrent requests for it share one lookup, and nothing is cached."""
        if target.host[0].isdigit() or ":" in target.host:
            with suppress(ValueError):  # other spellings are the resolver's to read
                return [ip_address(target.host)]
        key = (target.host, target.port)
        lookup = self._lookups.get(key)
        if lookup is None:

            def forget(done: asyncio.Future[Sequence[Address]]) -> None:
                del self._lookups[key]
                if not done.cancelled():
                    done.exception()  # or asyncio complains, if all who asked have been canceled

            lookup = self._lookups[key] = asyncio.ensure_future(self._resolver(*key))
            lookup.add_done_callback(forget)
        addresses = await asyncio.shield(lookup)
        if not addresses:
            raise OSError("the name has no address")
        return addresses

    async def _open_first(self, target: Target, addresses: Sequence[Address], *, guarded: bool) -> Connection:
        """Try one address after the other, each with its share of the time."""
        share_seconds = self._connect_timeout_seconds / len(addresses)
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(share_seconds):
                    return await self._open(target, address, guarded=guarded)
            except OSError:  # TimeoutError is one of them
                continue
        return await self._open(target, addresses[-1], guarded=guarded)

    async def _open(self, target: Target, address: Address, *, guarded: bool) -> Connection:
        loop = asyncio.get_running_loop()
        tls = target.scheme == "https"
        _, connection = await loop.create_connection(
            lambda: Connection(loop, _key(target, guarded)),
            str(address),
            target.port,
            ssl=self._ssl_context if tls else None,
            server_hostname=target.host.rstrip(".") if tls else None,
        )
        return connection


def _key(target: Target, guarded: bool) -> _Key:
    return (target.scheme, target.host, target.port, guarded)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # Loading the certificate authorities takes longer than a hundred requests: once for the process.
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
