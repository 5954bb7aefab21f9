"""One exchange over an open connection: writes the request and reads the answer, within the caller's bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from jobs.providers._contract import Response

from .connections import Connection
from .errors import CutShort, NotSent, OutcomeUnknown, TooLarge
from .requests import Request

#: reserves a number of bytes of memory, and waits until they are free. It is called before an answer's body is read, with its
#: Content-Length; if there is none, with a share, and again whenever the body has outgrown what was reserved. Meanwhile nothing is
#: read, and the time of the exchange stands still.
Reserve = Callable[[int], Awaitable[None]]

#: what is reserved at a time for an answer of unknown length, in bytes
_UNKNOWN_SHARE_BYTES = 4 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one exchange may take."""

    timeout_seconds: float
    #: in the event loop's time
    deadline: float
    max_bytes: int
    reserve: Reserve | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was sent."""

    response: Response
    #: why its body may not be whole
    doubt: str | None = None
    #: whether the time was over before the answer was
    late: bool = False
    #: bytes that came together with the end of the body, and after it
    surplus: bytes = b""

    def error(self, host: str) -> OutcomeUnknown | None:
        """The doubt as an error, for a caller that cannot tell whether the body is whole."""
        if self.doubt is None:
            return None
        return OutcomeUnknown(host, self.doubt) if self.late else CutShort(host, self.doubt, self.response)


async def exchange(connection: Connection, request: Request, bounds: Bounds, clock: asyncio.Timeout) -> Answer:
    """Send the request and read its answer. Raises NotSent, OutcomeUnknown, TooLarge."""
    await connection.write(request)
    await connection.news()
    reader = connection.reader
    head = reader.head
    if head is not None and not (request.follows and location(head.status, head.headers) is not None):
        await _read_body(connection, request.target.host, bounds, clock)
    return received(connection, request.target.host)


async def _read_body(connection: Connection, host: str, bounds: Bounds, clock: asyncio.Timeout) -> None:
    """Read the body, reserving memory before it, and more as it grows."""
    reader, max_bytes = connection.reader, bounds.max_bytes
    assert reader.head is not None
    length = reader.framing.length
    if length is not None and length > max_bytes:
        raise TooLarge(host, f"its answer has {length} bytes, more than {max_bytes}", reader.head.status)
    reserved = min(_UNKNOWN_SHARE_BYTES, max_bytes) if length is None else length
    await _reserve(reserved, bounds, clock)
    connection.allow(reserved)
    await connection.news()
    while reader.size > reserved or not reader.done:
        if reader.size > max_bytes:
            raise TooLarge(host, f"its answer has more than {max_bytes} bytes", reader.head.status)
        if reader.size > reserved:
            share = max(reader.size - reserved, _UNKNOWN_SHARE_BYTES)
            reserved += share
            await _reserve(share, bounds, clock)
            connection.allow(reserved)
        await connection.news()


async def _reserve(size: int, bounds: Bounds, clock: asyncio.Timeout) -> None:
    if bounds.reserve is None:
        return
    loop, when = asyncio.get_running_loop(), clock.when()
    asked_at = loop.time()
    clock.reschedule(None)
    await bounds.reserve(size)
    if when is not None:
        clock.reschedule(when + loop.time() - asked_at)


def received(connection: Connection, host: str, late: str | None = None) -> Answer:
    """What came over the connection; `late` is the reason if the time is over. Raises NotSent or OutcomeUnknown if nothing did."""
    reader = connection.reader
    if reader.head is None or reader.failure:
        broke = f"the connection broke ({connection.error})" if connection.error else None
        reason = late or broke or reader.failure or "it closed the connection early"
        raise OutcomeUnknown(host, reason) if connection.wrote else NotSent(host, reason)
    doubt = late or (f"its answer {reader.doubt.fault}" if reader.doubt else None)
    return Answer(
        Response(reader.head.status, reader.head.headers, reader.body), doubt, late is not None, reader.surplus
    )


def location(status: int, headers: Mapping[str, str]) -> str | None:
    """Where an answer redirects to; None if it does not."""
    return headers.get("location") if status in _REDIRECTS else None
