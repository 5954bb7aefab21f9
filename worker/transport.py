"""Performs provider calls and downloads on the worker's one event loop, and says what is known when one fails.

Every call opens a connection of its own, directly on httpcore's HTTP/1.1 exchange: a shared pool costs more with each
open connection, and a submission that costs money must not go out on an idle one that the other side is about to close.
The connection is opened here, so that three things are decided where they are known:

- the address: a host is resolved once, every answer is judged (`jobs.address_guard`), and a judged address is connected to;
- the outcome: until a byte of the request was handed to an open connection, nothing was sent, for certain (`NotSent`);
- the bytes: the URL goes out as it came, since a signed one does not survive being re-encoded.

    TransportError
     +- NotSent               surely nothing reached the other side: sending again is safe
     |   +- ForbiddenAddress  and nothing ever will: the URL leads where it must not
     +- OutcomeUnknown        the request may have been read and acted on
         +- CutShort          the answer began, and ended before its end
         +- TooLarge          the answer is larger than the caller takes
         +- TooManyRedirects

No message holds a path, a query or a header: they carry signatures and keys.
"""

from __future__ import annotations

import asyncio
import functools
import json as jsonlib
import ssl
import string
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import quote, urlencode, urljoin

import httpcore
import httpx

from jobs.address_guard import URL, Address, AddressGuard, Network, NonPublicAddress, Resolver, resolve
from jobs.providers._contract import FilePart, Response

#: awaited before an answer's body is read, with its Content-Length; where it names none, with a share, and again whenever
#: the body has outgrown what was reserved. While it waits, reading pauses and the call's time stands still.
Reserve = Callable[[int], Awaitable[None]]

#: the time for the download of one image, in seconds
FETCH_TIMEOUT_SECONDS = 120.0
#: bytes of an answer that may wait unread before the other side is slowed down
_READ_AHEAD_BYTES = 1 << 18
#: what is reserved at a time for an answer that does not say how long it is
_UNKNOWN_SHARE_BYTES = 4 << 20
#: an answer in more pieces than this would cost more time than it is worth: an attack, or broken
_MAX_PIECES = 1 << 16
_USER_AGENT = f"darkroom/{version('darkroom')}"
#: headers that no caller sets
_OURS = frozenset({"host", "content-length", "transfer-encoding"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: what may stand in a request line as it is; anything else (spaces, unicode) is escaped rather than refused
_TARGET_SAFE = string.punctuation


class TransportError(Exception):
    """The call brought no answer. `host` and `reason` are safe to log."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


class NotSent(TransportError):
    """Surely nothing reached the other side: no address, refused, no connection in time, TLS refused."""


class ForbiddenAddress(NotSent):
    """The URL is no http(s) URL, is plain http where that is not allowed, or leads to a forbidden address."""


class OutcomeUnknown(TransportError):
    """The request may have been read: timeout, reset, early close, a cut or unreadable answer."""


class CutShort(OutcomeUnknown):
    """The answer began and is not whole: fewer bytes than its Content-Length, or no last chunk."""


class TooLarge(OutcomeUnknown):
    """The answer is larger than `max_bytes`; no more of it was read than that. Its `status` is known."""

    def __init__(self, host: str, reason: str, status: int) -> None:
        super().__init__(host, reason)
        self.status = status


class TooManyRedirects(OutcomeUnknown):
    """The download was sent elsewhere more often than `max_redirects`."""


class Transport:
    """Sends requests over fresh connections; one of it serves a process, from one event loop."""

    def __init__(
        self,
        *,
        allowed_networks: Sequence[Network] = (),
        connect_timeout_seconds: float = 10.0,
        resolver: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = AddressGuard(tuple(allowed_networks))
        self._connect_timeout_seconds = connect_timeout_seconds
        self._resolver = resolver
        self._ssl_context = ssl_context or _ssl_context()
        self._lookups: dict[tuple[str, int], asyncio.Future[Sequence[Address]]] = {}

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        files: Sequence[FilePart] = (),
        content: bytes | None = None,
        timeout_seconds: float,
        max_bytes: int,
        guarded: bool = False,
        reserve: Reserve | None = None,
    ) -> Response:
        """Perform one request and return its whole answer, whatever its status; redirects are not followed.

        At most one of `json`, (`form`, `files`) and `content` is the body. `timeout_seconds` bounds all of it, from the
        lookup of the host to the last byte; `max_bytes` bounds the answer's body. `guarded` is for a URL that somebody
        else chose. Raises NotSent, ForbiddenAddress, OutcomeUnknown, TooLarge.
        """
        described, body = _encoded(json, form, files, content)
        target = _Target.parsed(url)
        merged = _merged({"Accept": "application/json"}, described, headers or {})
        request = _Request(method, target, merged, body)
        bounds = _Bounds(timeout_seconds, asyncio.get_running_loop().time() + timeout_seconds, max_bytes, reserve)
        return await self._performed(request, bounds, guarded=guarded)

    async def download(
        self,
        url: str,
        *,
        timeout_seconds: float,
        max_bytes: int,
        max_redirects: int = 3,
        guarded: bool = True,
        reserve: Reserve | None = None,
    ) -> Response:
        """Fetch a URL, following redirects, and return the last answer, whatever its status.

        Each hop is judged anew: https only, unless its address lies in an allowed network, and no forbidden address.
        The bounds are those of `send`, over all hops. Raises as `send` does, and TooManyRedirects.
        """
        bounds = _Bounds(timeout_seconds, asyncio.get_running_loop().time() + timeout_seconds, max_bytes, reserve)
        for _ in range(max_redirects + 1):
            target = _Target.parsed(url)
            request = _Request("GET", target, _merged({"Accept": "*/*"}), (), follow=True)
            response = await self._performed(request, bounds, guarded=guarded)
            location = _location(response)
            if location is None:
                return response
            url = _joined(target.host, url, location)
        raise TooManyRedirects(target.host, f"redirected more than {max_redirects} times")

    async def _performed(self, request: _Request, bounds: _Bounds, *, guarded: bool) -> Response:
        """One exchange on one connection: the place where foreign exceptions become ours."""
        host, stream = request.target.host, None
        try:
            async with asyncio.timeout_at(bounds.deadline) as clock:
                stream = await self._connected(request.target, guarded=guarded)
                return await _exchanged(stream, request, bounds, clock)
        except TimeoutError:
            raise _failure(stream, host, f"no full answer within {bounds.timeout_seconds:g} s") from None
        except (OSError, httpcore.NetworkError) as error:
            raise _failure(stream, host, f"the connection broke ({_reason(error)})") from None
        except (httpcore.ProtocolError, UnicodeError, zlib.error) as error:
            raise _failure(stream, host, _protocol_reason(error)) from None
        finally:
            if stream is not None:
                stream.close()

    async def _connected(self, target: _Target, *, guarded: bool) -> _Stream:
        """An open connection, TLS included, to a judged address. Whatever fails in here, nothing was sent."""
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                addresses = await self._addresses(target)
                if guarded:
                    self._judge(target, addresses)
                return await self._opened(target, addresses)
        except TimeoutError:
            raise NotSent(target.host, f"no connection within {self._connect_timeout_seconds:g} s") from None
        except (OSError, UnicodeError) as error:
            raise NotSent(target.host, f"cannot connect ({_reason(error)})") from None

    async def _addresses(self, target: _Target) -> Sequence[Address]:
        """Resolve the host; calls that ask for it at the same moment share one lookup, and nothing is cached."""
        key = (target.host, target.port)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.ensure_future(self._resolver(*key))
            lookup.add_done_callback(lambda done: self._looked_up(key, done))
        addresses = await asyncio.shield(lookup)
        if not addresses:
            raise OSError("the name has no address")
        return addresses

    def _looked_up(self, key: tuple[str, int], lookup: asyncio.Future[Sequence[Address]]) -> None:
        del self._lookups[key]
        if not lookup.cancelled():
            lookup.exception()  # those who asked may all be gone

    def _judge(self, target: _Target, addresses: Sequence[Address]) -> None:
        try:
            self._guard.check(addresses)
        except NonPublicAddress as forbidden:
            raise ForbiddenAddress(target.host, str(forbidden)) from None
        if target.scheme != "https" and not all(map(self._guard.is_allowed, addresses)):
            raise ForbiddenAddress(target.host, "plain http is only spoken within DARKROOM_ALLOWED_PRIVATE_NETWORKS")

    async def _opened(self, target: _Target, addresses: Sequence[Address]) -> _Stream:
        """Try one address after the other, each with its share of the time."""
        share_seconds = self._connect_timeout_seconds / len(addresses)
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(share_seconds):
                    return await self._open(target, address)
            except OSError:  # TimeoutError is one of them
                continue
        return await self._open(target, addresses[-1])

    async def _open(self, target: _Target, address: Address) -> _Stream:
        loop = asyncio.get_running_loop()
        tls = target.scheme == "https"
        _, stream = await loop.create_connection(
            lambda: _Stream(loop),
            str(address),
            target.port,
            ssl=self._ssl_context if tls else None,
            server_hostname=target.host.rstrip(".") if tls else None,
        )
        return stream


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a request goes: `target` is what its first line says, byte for byte what the URL said."""

    scheme: str
    host: str
    port: int
    authority: str
    target: bytes

    @classmethod
    def parsed(cls, url: str) -> _Target:
        match = URL.fullmatch(url)
        if match is None:
            raise ForbiddenAddress("?", "no http(s) URL with a plain host")
        scheme, host = match["scheme"].lower(), match["host"].lower()
        port = int(match["port"] or _DEFAULT_PORTS[scheme])
        if not 0 < port < 65536:
            raise ForbiddenAddress(host, f"{port} is no port")
        authority = host if port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"
        target = match["target"] or "/"
        try:
            target = quote(target if target.startswith("/") else f"/{target}", safe=_TARGET_SAFE)
        except UnicodeError:
            raise ForbiddenAddress(host, "a URL with letters that cannot be written") from None
        return cls(scheme, host.strip("[]"), port, authority, target.encode("ascii"))


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: _Target
    headers: Mapping[str, str]
    #: the parts of the body, not joined, so that no file is copied
    body: Sequence[bytes]
    #: leave the body of a redirect unread
    follow: bool = False

    def for_httpcore(self) -> httpcore.Request:
        # Where it goes and how long it is follow from the request itself; nothing is ever sent chunked.
        given = {name: value for name, value in self.headers.items() if name.lower() not in _OURS}
        headers = {"Host": self.target.authority, **given}
        if self.body or self.method not in {"GET", "HEAD"}:
            headers["Content-Length"] = str(sum(map(len, self.body)))
        return httpcore.Request(
            self.method,
            httpcore.URL(
                scheme=self.target.scheme, host=self.target.host, port=self.target.port, target=self.target.target
            ),
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
            content=_Parts(self.body),
        )


@dataclass(frozen=True, slots=True)
class _Bounds:
    timeout_seconds: float
    #: in the loop's time
    deadline: float
    max_bytes: int
    reserve: Reserve | None


class _Parts:
    """The parts of a body in the shape that httpcore reads."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


class _Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """An open connection as httpcore wants it, without a layer between, which knows whether anything was written."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._ended = False
        self._error: Exception | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        #: False: surely not one byte of the request has left
        self.wrote = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > _READ_AHEAD_BYTES:
            self._transport.pause_reading()
        _wake(self._readable)

    def eof_received(self) -> None:
        self._ended = True
        _wake(self._readable)
        _wake(self._writable)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        _wake(self._readable)
        _wake(self._writable)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        _wake(self._writable)
        self._writable = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109
        """Whatever has come, at once, in the pieces in which it came: cutting them to `max_bytes` would copy them."""
        while not self._chunks:
            if self._error is not None:
                raise httpcore.ReadError(_reason(self._error))
            if self._ended:
                return b""
            self._readable = self._loop.create_future()
            await self._readable
        data = self._chunks.popleft()
        self._unread_bytes -= len(data)
        if self._unread_bytes <= _READ_AHEAD_BYTES < self._unread_bytes + len(data):
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Hand the bytes to the connection; httpcore still reads an answer that came before it was closed."""
        if self._ended or self._transport.is_closing():
            raise httpcore.WriteError("closed by the other side")
        self.wrote = True
        self._transport.write(buffer)
        if self._writable is not None:
            await self._writable

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        # The exchange is over or given up: nothing is left to flush, so no time is spent on a farewell.
        self._transport.abort()


async def _exchanged(stream: _Stream, request: _Request, bounds: _Bounds, clock: asyncio.Timeout) -> Response:
    outgoing = request.for_httpcore()
    connection = httpcore.AsyncHTTP11Connection(outgoing.url.origin, stream)
    answer = await connection.handle_async_request(outgoing)
    response = Response(answer.status, _lowered(answer.headers))
    if request.follow and _location(response) is not None:
        return response
    room = _Room(request.target.host, bounds, clock)
    await room.for_length(response)
    try:
        body = await _collected(answer, request.target.host, bounds.max_bytes, room)
    except httpcore.RemoteProtocolError:
        raise CutShort(request.target.host, "its answer was cut short") from None
    return _decoded(response, body, request.target.host, bounds.max_bytes)


@dataclass
class _Room:
    """What is reserved for one answer's body."""

    host: str
    bounds: _Bounds
    clock: asyncio.Timeout
    reserved: int = 0

    async def for_length(self, response: Response) -> None:
        """Refuse an answer that says it is too large; make room for any other before it is read."""
        length = int(response.headers.get("content-length", min(_UNKNOWN_SHARE_BYTES, self.bounds.max_bytes)))
        if length > self.bounds.max_bytes:
            said = f"its answer has {length} bytes, more than {self.bounds.max_bytes}"
            raise TooLarge(self.host, said, response.status)
        await self._more(length)

    async def for_size(self, size: int) -> None:
        """Make room for a body that has outgrown what was reserved."""
        if size > self.reserved:
            await self._more(max(size - self.reserved, _UNKNOWN_SHARE_BYTES))

    async def _more(self, size: int) -> None:
        self.reserved += size
        if self.bounds.reserve is None:
            return
        loop, when = asyncio.get_running_loop(), self.clock.when()
        asked_at = loop.time()
        self.clock.reschedule(None)
        await self.bounds.reserve(size)
        if when is not None:
            self.clock.reschedule(when + loop.time() - asked_at)


async def _collected(answer: httpcore.Response, host: str, max_bytes: int, room: _Room) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async with aclosing(cast(Any, answer.stream).__aiter__()) as incoming:
        async for chunk in incoming:
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                raise TooLarge(host, f"its answer has more than {max_bytes} bytes", answer.status)
            if len(chunks) > _MAX_PIECES:
                raise OutcomeUnknown(host, f"its answer comes in more than {_MAX_PIECES} pieces")
            await room.for_size(size)
    return b"".join(chunks)


def _decoded(response: Response, body: bytes, host: str, max_bytes: int) -> Response:
    """The answer without its Content-Encoding, which we never asked for; what it inflates to is bounded too."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"", "identity"} or not body:
        return Response(response.status, response.headers, body)
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise OutcomeUnknown(host, "its answer is compressed in a way that was not asked for")
    inflator = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    plain = inflator.decompress(body, max_bytes + 1)
    if len(plain) > max_bytes:
        raise TooLarge(host, f"its answer inflates to more than {max_bytes} bytes", response.status)
    if not inflator.eof:
        raise CutShort(host, "its compressed answer was cut short")
    kept = {n: v for n, v in response.headers.items() if n not in {"content-encoding", "content-length"}}
    return Response(response.status, kept, plain)


def _encoded(
    json: Any, form: Mapping[str, str] | None, files: Sequence[FilePart], content: bytes | None
) -> tuple[Mapping[str, str], Sequence[bytes]]:
    """The headers that describe a body, and the body in parts."""
    if content is not None:
        return {}, (content,) if content else ()
    if json is not None:
        text = jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return {"Content-Type": "application/json"}, (text.encode(),)
    if files:
        return _multipart(form or {}, files)
    if form is not None:
        return {"Content-Type": "application/x-www-form-urlencoded"}, (urlencode(form).encode("ascii"),)
    return {}, ()


def _multipart(form: Mapping[str, str], files: Sequence[FilePart]) -> tuple[Mapping[str, str], Sequence[bytes]]:
    parts = [(file.name, (file.filename, file.content, file.content_type)) for file in files]
    request = httpx.Request("POST", "http://multipart", data=dict(form), files=parts)
    stream = cast(httpx.SyncByteStream, request.stream)
    return {"Content-Type": request.headers["Content-Type"]}, tuple(stream)


def _merged(*layers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of all layers; a later one replaces an earlier one in whatever case its name is written."""
    base = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
    merged = {name.lower(): (name, value) for layer in (base, *layers) for name, value in layer.items()}
    return dict(merged.values())


def _lowered(headers: Sequence[tuple[bytes, bytes]]) -> Mapping[str, str]:
    lowered: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        lowered[name] = f"{lowered[name]}, {value}" if name in lowered else value
    return lowered


def _location(response: Response) -> str | None:
    return response.headers.get("location") if response.status in _REDIRECTS else None


def _joined(host: str, url: str, location: str) -> str:
    if URL.fullmatch(location):
        return location
    try:
        return urljoin(url, location)
    except ValueError:
        raise ForbiddenAddress(host, "it redirects to what is no URL") from None


def _failure(stream: _Stream | None, host: str, reason: str) -> TransportError:
    """The one rule: what was never written was never sent; anything else is unknown."""
    if stream is None or not stream.wrote:
        return NotSent(host, reason)
    return OutcomeUnknown(host, reason)


def _reason(error: Exception) -> str:
    """The system's words for an error, which name no more than an address."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _protocol_reason(error: Exception) -> str:
    # Their own messages quote the offending header, which may be a key or a signed URL.
    if isinstance(error, httpcore.LocalProtocolError | UnicodeError):
        return "the request holds a header that HTTP does not allow"
    return "it closed the connection early, or its answer is no HTTP"


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # Loading the authorities takes longer than a hundred calls: once for the process.
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
