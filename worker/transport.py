"""Performs HTTP exchanges on the worker's event loop, and says what is known about one that fails.

Every request opens a connection of its own, directly on httpcore's HTTP/1.1 exchange: a shared pool costs more with each open
connection, and a submission that costs money must not go out on an idle connection that the other side is about to close. The
connection is opened here, so that three things are decided where they are known:

- the address: a host is resolved once, all its addresses are checked (`jobs.address_guard`), and a checked address is connected to;
- the outcome: until a byte of the request was written to an open connection, it was surely not sent (`NotSent`);
- the bytes: the URL goes out as it came, since a signed one does not survive being encoded again.

    TransportError
     +- NotSent               surely nothing reached the other side: sending again is safe
     |   +- ForbiddenAddress  and nothing ever will: the URL leads to a forbidden address
     +- OutcomeUnknown        the request may have been read and acted on
         +- CutShort          the answer began, and ended too early
         +- TooLarge          the answer is larger than the caller accepts
         +- TooManyRedirects

No message holds a path, a query or a header, since those carry signatures and keys.
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

#: reserves a number of bytes of memory, and waits until they are free. It is called before an answer's body is read, with its
#: Content-Length; if there is none, with a share, and again whenever the body has outgrown what was reserved. Meanwhile nothing is
#: read, and the time of the exchange stands still.
Reserve = Callable[[int], Awaitable[None]]

#: the time for the download of one image, in seconds
FETCH_TIMEOUT_SECONDS = 120.0
#: how many bytes of an answer may wait unread before the other side is slowed down
_READ_AHEAD_BYTES = 1 << 18
#: what is reserved at a time for an answer of unknown length, in bytes
_UNKNOWN_SHARE_BYTES = 4 << 20
#: an answer in more pieces than this is an attack, or broken
_MAX_PIECES = 1 << 16
_USER_AGENT = f"darkroom/{version('darkroom')}"
#: headers that are set here, whatever the caller says
_OURS = frozenset({"host", "content-length", "transfer-encoding"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: characters that a request line holds as they are; all others (spaces, non-ASCII) are escaped
_TARGET_SAFE = string.punctuation


class TransportError(Exception):
    """The exchange brought no answer. `host` and `reason` are safe to log."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


class NotSent(TransportError):
    """Surely nothing reached the other side: no address, refused, no connection in time, TLS refused."""


class ForbiddenAddress(NotSent):
    """The URL is not a valid http(s) URL, uses plain http where that is not allowed, or leads to a forbidden address."""


class OutcomeUnknown(TransportError):
    """The request may have been read: timeout, reset, early close, an incomplete or unreadable answer."""


class CutShort(OutcomeUnknown):
    """The answer is incomplete: fewer bytes than its Content-Length, or no last chunk."""


class TooLarge(OutcomeUnknown):
    """The answer is larger than `max_bytes`, and no more of it was read. Its `status` is known."""

    def __init__(self, host: str, reason: str, status: int) -> None:
        super().__init__(host, reason)
        self.status = status


class TooManyRedirects(OutcomeUnknown):
    """The download was redirected more than `max_redirects` times."""


class Transport:
    """Sends requests over new connections. One serves a whole process, from one event loop."""

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

        At most one of `json`, (`form`, `files`) and `content` is the body. `timeout_seconds` bounds the whole exchange, from
        the lookup of the host to the last byte; `max_bytes` bounds the answer's body. `guarded` is for a URL that somebody
        else chose. Raises NotSent, ForbiddenAddress, OutcomeUnknown, TooLarge.
        """
        described, body = encode_body(json, form, files, content)
        target = _Target.parsed(url)
        merged = _merged({"Accept": "application/json"}, described, headers or {})
        request = _Request(method, target, merged, body)
        bounds = _Bounds(timeout_seconds, asyncio.get_running_loop().time() + timeout_seconds, max_bytes, reserve)
        return await self._perform(request, bounds, guarded=guarded)

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

        Each hop is checked: https only, unless its address is in an allowed network, and no forbidden address. The bounds
        are those of `send`, over all hops. Raises as `send` does, and TooManyRedirects.
        """
        bounds = _Bounds(timeout_seconds, asyncio.get_running_loop().time() + timeout_seconds, max_bytes, reserve)
        for _ in range(max_redirects + 1):
            target = _Target.parsed(url)
            request = _Request("GET", target, _merged({"Accept": "*/*"}), (), follow=True)
            response = await self._perform(request, bounds, guarded=guarded)
            location = _location(response)
            if location is None:
                return response
            try:
                url = location if URL.fullmatch(location) else urljoin(url, location)
            except ValueError:
                raise ForbiddenAddress(target.host, "it redirects to something that is not a URL") from None
        raise TooManyRedirects(target.host, f"redirected more than {max_redirects} times")

    async def _perform(self, request: _Request, bounds: _Bounds, *, guarded: bool) -> Response:
        """One exchange on one connection. All exceptions of httpcore and asyncio are translated here."""
        host, stream = request.target.host, None
        try:
            async with asyncio.timeout_at(bounds.deadline) as clock:
                stream = await self._connect(request.target, guarded=guarded)
                return await exchange(stream, request, bounds, clock)
        except TimeoutError:
            raise _failure(stream, host, f"no full answer within {bounds.timeout_seconds:g} s") from None
        except (OSError, httpcore.NetworkError) as error:
            raise _failure(stream, host, f"the connection broke ({_reason(error)})") from None
        # Their own messages quote the offending header, which may be a key or a signed URL.
        except (httpcore.LocalProtocolError, UnicodeError):
            raise _failure(stream, host, "the request holds a header that HTTP does not allow") from None
        except (httpcore.ProtocolError, zlib.error):
            raise _failure(stream, host, "it closed the connection early, or its answer is not HTTP") from None
        finally:
            if stream is not None:
                stream.close()

    async def _connect(self, target: _Target, *, guarded: bool) -> _Stream:
        """Open a connection, TLS included, to a checked address. Whatever fails in here, nothing was sent."""
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                addresses = await self._resolve(target)
                if guarded:
                    self._guard.check(addresses)
                    if target.scheme != "https" and not all(map(self._guard.is_allowed, addresses)):
                        said = "plain http is only allowed within DARKROOM_ALLOWED_PRIVATE_NETWORKS"
                        raise ForbiddenAddress(target.host, said)
                return await self._open_first(target, addresses)
        except NonPublicAddress as error:
            raise ForbiddenAddress(target.host, str(error)) from None
        except TimeoutError:
            raise NotSent(target.host, f"no connection within {self._connect_timeout_seconds:g} s") from None
        except (OSError, UnicodeError) as error:
            raise NotSent(target.host, f"cannot connect ({_reason(error)})") from None

    async def _resolve(self, target: _Target) -> Sequence[Address]:
        """Resolve the host. Concurrent requests for it share one lookup, and nothing is cached."""
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

    async def _open_first(self, target: _Target, addresses: Sequence[Address]) -> _Stream:
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
    """Where a request goes. `target` is the one of its request line, byte for byte as in the URL."""

    scheme: str
    host: str
    port: int
    authority: str
    target: bytes

    @classmethod
    def parsed(cls, url: str) -> _Target:
        match = URL.fullmatch(url)
        if match is None:
            raise ForbiddenAddress("?", "not an http(s) URL with a plain host")
        scheme, host = match["scheme"].lower(), match["host"].lower()
        port = int(match["port"] or _DEFAULT_PORTS[scheme])
        if not 0 < port < 65536:
            raise ForbiddenAddress(host, f"{port} is not a valid port")
        authority = host if port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"
        target = match["target"] or "/"
        try:
            target = quote(target if target.startswith("/") else f"/{target}", safe=_TARGET_SAFE)
        except UnicodeError:
            raise ForbiddenAddress(host, "the URL has characters that cannot be encoded") from None
        return cls(scheme, host.strip("[]"), port, authority, target.encode("ascii"))


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: _Target
    headers: Mapping[str, str]
    #: the parts of the body; not joined, so that no file is copied
    body: Sequence[bytes]
    #: whether the body of a redirect is left unread
    follow: bool = False

    def for_httpcore(self) -> httpcore.Request:
        # Host and length follow from the request itself; nothing is ever sent chunked.
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
    #: in the event loop's time
    deadline: float
    max_bytes: int
    reserve: Reserve | None


class _Parts:
    """The parts of a body, as httpcore reads them."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


class _Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """An open connection as httpcore uses it, without a layer in between, which knows whether anything was written."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._ended = False
        self._error: Exception | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        #: False: surely no byte of the request was sent
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

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - httpcore's signature
        """Return the next piece as it came: cutting it to `max_bytes` would copy it."""
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

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - as above
        """Write the bytes; httpcore still reads an answer that came before the connection was closed."""
        if self._ended or self._transport.is_closing():
            raise httpcore.WriteError("closed by the other side")
        self.wrote = True
        self._transport.write(buffer)
        if self._writable is not None:
            await self._writable

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        # The exchange is over or given up: nothing is left to flush, so no time is spent on closing gracefully.
        self._transport.abort()


async def exchange(stream: _Stream, request: _Request, bounds: _Bounds, clock: asyncio.Timeout) -> Response:
    """Send the request over an open connection and read its answer."""
    outgoing = request.for_httpcore()
    connection = httpcore.AsyncHTTP11Connection(outgoing.url.origin, stream)
    answer = await connection.handle_async_request(outgoing)
    headers: dict[str, str] = {}
    for raw_name, raw_value in answer.headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    response = Response(answer.status, headers)
    if request.follow and _location(response) is not None:
        return response
    budget = _BodyBudget(request.target.host, bounds, clock)
    await budget.reserve_for_length(response)
    try:
        body = await budget.read(answer)
    except httpcore.RemoteProtocolError:
        raise CutShort(request.target.host, "its answer was cut short") from None
    return decode_body(response, body, request.target.host, bounds.max_bytes)


@dataclass
class _BodyBudget:
    """The bytes and the memory that one answer's body may take."""

    host: str
    bounds: _Bounds
    clock: asyncio.Timeout
    reserved: int = 0

    async def reserve_for_length(self, response: Response) -> None:
        """Reserve memory for the whole answer, or a share if its length is unknown. Raises TooLarge if it is too long."""
        length = int(response.headers.get("content-length", min(_UNKNOWN_SHARE_BYTES, self.bounds.max_bytes)))
        if length > self.bounds.max_bytes:
            said = f"its answer has {length} bytes, more than {self.bounds.max_bytes}"
            raise TooLarge(self.host, said, response.status)
        await self._reserve(length)

    async def read(self, answer: httpcore.Response) -> bytes:
        """Read the body, reserving more memory as it grows."""
        chunks: list[bytes] = []
        size = 0
        async with aclosing(cast(Any, answer.stream).__aiter__()) as incoming:
            async for chunk in incoming:
                chunks.append(chunk)
                size += len(chunk)
                if size > self.bounds.max_bytes:
                    raise TooLarge(self.host, f"its answer has more than {self.bounds.max_bytes} bytes", answer.status)
                if len(chunks) > _MAX_PIECES:
                    raise OutcomeUnknown(self.host, f"its answer comes in more than {_MAX_PIECES} pieces")
                if size > self.reserved:
                    await self._reserve(max(size - self.reserved, _UNKNOWN_SHARE_BYTES))
        return b"".join(chunks)

    async def _reserve(self, size: int) -> None:
        self.reserved += size
        if self.bounds.reserve is None:
            return
        loop, when = asyncio.get_running_loop(), self.clock.when()
        asked_at = loop.time()
        self.clock.reschedule(None)
        await self.bounds.reserve(size)
        if when is not None:
            self.clock.reschedule(when + loop.time() - asked_at)


def decode_body(response: Response, body: bytes, host: str, max_bytes: int) -> Response:
    """Return the answer without a Content-Encoding, though none was asked for; the decompressed size is bounded too."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"", "identity"} or not body:
        return Response(response.status, response.headers, body)
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise OutcomeUnknown(host, "its answer has a Content-Encoding that was not asked for")
    inflator = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    plain = inflator.decompress(body, max_bytes + 1)
    if len(plain) > max_bytes:
        raise TooLarge(host, f"its answer decompresses to more than {max_bytes} bytes", response.status)
    if not inflator.eof:
        raise CutShort(host, "its compressed answer was cut short")
    headers = {n: v for n, v in response.headers.items() if n not in {"content-encoding", "content-length"}}
    return Response(response.status, headers, plain)


def encode_body(
    json: Any, form: Mapping[str, str] | None, files: Sequence[FilePart], content: bytes | None
) -> tuple[Mapping[str, str], Sequence[bytes]]:
    """Return the headers that describe a body, and the body in parts."""
    if content is not None:
        return {}, (content,) if content else ()
    if json is not None:
        text = jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return {"Content-Type": "application/json"}, (text.encode(),)
    if files:
        parts = [(file.name, (file.filename, file.content, file.content_type)) for file in files]
        request = httpx.Request("POST", "http://multipart", data=dict(form or {}), files=parts)
        stream = cast(httpx.SyncByteStream, request.stream)
        return {"Content-Type": request.headers["Content-Type"]}, tuple(stream)
    if form is not None:
        return {"Content-Type": "application/x-www-form-urlencoded"}, (urlencode(form).encode("ascii"),)
    return {}, ()


def _merged(*layers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of all layers; a later one replaces an earlier one, whatever the case of its name."""
    base = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
    merged = {name.lower(): (name, value) for layer in (base, *layers) for name, value in layer.items()}
    return dict(merged.values())


def _location(response: Response) -> str | None:
    return response.headers.get("location") if response.status in _REDIRECTS else None


def _failure(stream: _Stream | None, host: str, reason: str) -> TransportError:
    """If nothing was written, nothing was sent; otherwise the outcome is unknown."""
    if stream is None or not stream.wrote:
        return NotSent(host, reason)
    return OutcomeUnknown(host, reason)


def _reason(error: Exception) -> str:
    """The operating system's message, which names no more than an address."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # Loading the certificate authorities takes longer than a hundred requests: once for the process.
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
