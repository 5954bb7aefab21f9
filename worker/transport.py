"""Performs HTTP exchanges on the worker's event loop, and says what is known about one that fails.

Every submission opens a connection of its own: it costs money, and must not go out on an idle connection that the other side is
about to close. Uploads may be repeated, so they use connections again. Three things are decided where they are known:

- the address: where the connection is opened (`http.connections`);
- the outcome: until a byte of the request was written to an open connection, it was surely not sent (`NotSent`);
- whether an answer is whole: by its framing (`http.answers`), or, where that is broken, by what the answer is.

`http.leniencies` lists what is forgiven in an answer; `http.errors` is the tree of errors.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

from jobs.address_guard import URL, AddressGuard, Network, Resolver, resolve
from jobs.providers._contract import FilePart, Response

from .http import leniencies
from .http.bodies import TooLong, Undecodable, decode_body, encode_body, text_size
from .http.connections import Connection, Connections
from .http.errors import (
    CutShort,
    ForbiddenAddress,
    NotSent,
    OutcomeUnknown,
    TooLarge,
    TooManyRedirects,
    TransportError,
)
from .http.exchange import Answer, Bounds, Reserve, exchange, location, received
from .http.requests import Request, Target
from .http.threads import ON_THE_LOOP_BYTES, compute

__all__ = [
    "FETCH_TIMEOUT_SECONDS",
    "CutShort",
    "ForbiddenAddress",
    "NotSent",
    "OutcomeUnknown",
    "Reserve",
    "TooLarge",
    "TooManyRedirects",
    "Transport",
    "TransportError",
]

#: the time for the download of one image, in seconds
FETCH_TIMEOUT_SECONDS = 120.0


class Transport:
    """Sends requests. One serves a whole process, from one event loop."""

    def __init__(
        self,
        *,
        allowed_networks: Sequence[Network] = (),
        connect_timeout_seconds: float = 10.0,
        resolver: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
        idle_seconds: float = 15.0,
    ) -> None:
        """`idle_seconds` is how long an unused connection is kept: less than most servers do."""
        guard = AddressGuard(tuple(allowed_networks))
        self._connections = Connections(guard, connect_timeout_seconds, resolver, ssl_context, idle_seconds)

    def close(self) -> None:
        """Close the connections that wait for another request."""
        self._connections.close()

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
        repeatable: bool = False,
        reserve: Reserve | None = None,
    ) -> Response:
        """Perform one request and return its whole answer, whatever its status; redirects are not followed.

        At most one of `json`, (`form`, `files`) and `content` is the body. `timeout_seconds` bounds the whole exchange, from
        the lookup of the host to the last byte; `max_bytes` bounds the answer's body. `guarded` is for a URL that somebody
        else chose. A `repeatable` request may go out on a connection that was used before, and a second time on a new one if the
        other side had closed that. An answer that was cut behind one whole JSON value is whole. Raises NotSent,
        ForbiddenAddress, OutcomeUnknown, TooLarge.
        """
        target = Target.parsed(url)
        size = text_size(json, ON_THE_LOOP_BYTES)
        described, body = await compute(size, encode_body, json, form, files, content)
        merged = {"Accept": "application/json", **described, **(headers or {})}
        request = Request.of(method, target, merged, body, reuses=repeatable)
        bounds = Bounds(timeout_seconds, asyncio.get_running_loop().time() + timeout_seconds, max_bytes, reserve)
        answer = await self._perform(request, bounds, guarded=guarded)
        return await _read_json(answer, target.host, max_bytes)

    async def download(
        self,
        url: str,
        *,
        timeout_seconds: float,
        max_bytes: int,
        max_redirects: int = 3,
        guarded: bool = True,
        reuses: bool = False,
        reserve: Reserve | None = None,
    ) -> Response:
        """Fetch a URL, following redirects, and return the last answer, whatever its status.

        Each hop is checked: https only, unless its address is in an allowed network, and no forbidden address. The bounds
        are those of `send`, over all hops. With `reuses`, connections are used again; but a host that announces more bytes than
        it sends may then keep the connection open until the time is over. Raises as `send` does, CutShort for a body that may not be whole, and
        TooManyRedirects.
        """
        bounds = Bounds(timeout_seconds, asyncio.get_running_loop().time() + timeout_seconds, max_bytes, reserve)
        for _ in range(max_redirects + 1):
            target = Target.parsed(url)
            request = Request.of("GET", target, {"Accept": "*/*"}, (), reuses=reuses, follows=True)
            answer = await self._perform(request, bounds, guarded=guarded)
            further = location(answer.response.status, answer.response.headers)
            if further is None:
                return await _read_file(answer, target.host, max_bytes)
            try:
                url = further if URL.fullmatch(further) else urljoin(url, further)
            except ValueError:
                raise ForbiddenAddress(target.host, "it redirects to something that is not a URL") from None
        raise TooManyRedirects(target.host, f"redirected more than {max_redirects} times")

    async def _perform(self, request: Request, bounds: Bounds, *, guarded: bool) -> Answer:
        """One exchange, on an idle connection if the request allows that."""
        idle = self._connections.take_idle(request.target, guarded=guarded) if request.reuses else None
        if idle is not None:
            try:
                return await self._exchange(request, bounds, idle, guarded=guarded)
            except TransportError:
                if not idle.was_stale:
                    raise
        return await self._exchange(request, bounds, None, guarded=guarded)

    async def _exchange(
        self, request: Request, bounds: Bounds, connection: Connection | None, *, guarded: bool
    ) -> Answer:
        """One exchange on one connection, a new one if none is given."""
        host, keep = request.target.host, False
        try:
            async with asyncio.timeout_at(bounds.deadline) as clock:
                if connection is None:
                    connection = await self._connections.open(request.target, guarded=guarded)
                answer = await exchange(connection, request, bounds, clock)
            keep = request.reuses
        except TimeoutError:
            late = f"no full answer within {bounds.timeout_seconds:g} s"
            if connection is None:
                raise NotSent(host, late) from None
            return received(connection, host, late)
        else:
            return answer
        finally:
            if connection is not None:
                self._connections.keep(connection) if keep else connection.close()


async def _read_json(answer: Answer, host: str, max_bytes: int) -> Response:
    """The answer of an API. Where its framing leaves a doubt, one whole JSON value removes it."""
    decoded, readable = await _decoded(answer, host, max_bytes)
    if not readable and decoded.doubt is None:
        decoded = replace(decoded, doubt=f"its answer {leniencies.UNREADABLE_CODING.fault}")
    response, surplus, error = decoded.response, answer.surplus, decoded.error(host)
    if error is None and not surplus:
        return response
    for body in (response.body, response.body + surplus):  # LENGTH_TOO_SMALL
        is_whole = await compute(len(body), leniencies.is_whole_json, body)
        if is_whole and len(body) <= max_bytes:
            return replace(response, body=body)
    if error is not None:
        raise error
    return response


async def _read_file(answer: Answer, host: str, max_bytes: int) -> Response:
    """A file. What says that it is encoded and is not is taken as it is: its own structure tells."""
    decoded, _ = await _decoded(answer, host, max_bytes)
    if (error := decoded.error(host)) is not None:
        raise error
    return decoded.response


async def _decoded(answer: Answer, host: str, max_bytes: int) -> tuple[Answer, bool]:
    """The answer without a Content-Encoding, though none was asked for, and whether its Content-Encoding could be read."""
    response = answer.response
    codings = leniencies.content_codings(response.headers)
    if not codings or not response.body:
        return answer, codings is not None or not response.body
    try:
        plain, complete = await asyncio.to_thread(decode_body, response.body, codings, max_bytes)
    except Undecodable:
        return answer, False
    except TooLong:
        raise TooLarge(host, f"its answer decompresses to more than {max_bytes} bytes", response.status) from None
    headers = {n: v for n, v in response.headers.items() if n not in {"content-encoding", "content-length"}}
    doubt = answer.doubt or (None if complete else "its compressed answer was cut short")
    return replace(answer, response=Response(response.status, headers, plain), doubt=doubt), True
