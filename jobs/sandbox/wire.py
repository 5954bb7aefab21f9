"""HTTP/1.1 on asyncio streams, near enough to the socket to break it on purpose.

A WSGI or ASGI server answers every request whole; vendors do not. Here an application returns a `Reply`, and among
the replies are the ones that no framework can give: a closed connection, a body that ends early, and silence.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import h11

#: Largest request body that is read; above it the answer is 413. Bytes.
MAX_BODY = 64 * 1024 * 1024
#: How much is read or written at once. Bytes.
CHUNK = 64 * 1024


@dataclass(frozen=True)
class Request:
    """One request, with its target exactly as it came over the wire."""

    method: str
    #: Path and query, byte for byte; a signed URL is compared with this and never decoded.
    target: bytes
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes
    #: Whether the client has hung up by now.
    gone: Callable[[], bool]

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("ascii", "replace")

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition(b"?")[2].decode("ascii", "replace")))

    @property
    def host(self) -> str:
        return self.headers.get("host", "")


@dataclass(frozen=True)
class Answer:
    """A status, headers and a body; with `sent`, only so many bytes of the body leave before the connection is cut."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    sent: int | None = None


@dataclass(frozen=True)
class Endless:
    """A 200 without a length whose body repeats `chunk` until the client hangs up."""

    chunk: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Drop:
    """No answer: the connection is closed, politely (FIN) or by a reset (RST)."""

    reset: bool = False


@dataclass(frozen=True)
class Hang:
    """No answer and no close until the client gives up, or until `seconds` have passed."""

    seconds: float | None = None


Reply = Answer | Endless | Drop | Hang
Application = Callable[[Request], Awaitable[Reply]]


def json_answer(status: int, value: Any, **headers: str) -> Answer:
    """An `Answer` that carries `value` as JSON; header names are given with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"content-type": "application/json", **named})


class Connection:
    """One client connection: requests in, replies out, until either side has enough."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, application: Application) -> None:
        self._reader = reader
        self._writer = writer
        self._application = application
        self._http = h11.Connection(h11.SERVER)
        self._wants_body = True

    async def serve(self) -> None:
        """Serve until the connection ends; never raises for what a client does."""
        try:
            while (request := await self._next_request()) is not None:
                await self._reply(await self._application(request))
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except (h11.RemoteProtocolError, _TooLarge) as error:
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                status = 413 if isinstance(error, _TooLarge) else 400
                self._put(h11.Response(status_code=status, headers=[("content-length", "0"), ("connection", "close")]))
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            # The sandbox stops: what is still buffered for a client that does not read must not hold it up.
            self._writer.transport.abort()
            raise
        finally:
            self._writer.close()

    async def _next_request(self) -> Request | None:
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise _TooLarge
        self._wants_body = head.method != b"HEAD"
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        return Request(head.method.decode("ascii"), head.target, headers, bytes(body), self._reader.at_eof)

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._put(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(CHUNK))
        return event

    def _put(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def _reply(self, reply: Reply) -> None:
        match reply:
            case Answer():
                await self._answer(reply)
            case Endless():
                await self._repeat(reply)
            case Hang(seconds):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        while await self._reader.read(CHUNK):
                            pass
            case Drop(reset=True):
                descriptor = self._writer.get_extra_info("socket").fileno()
                with socket.socket(fileno=socket.dup(descriptor)) as twin:
                    # A linger of zero seconds turns the close into a reset.
                    twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._writer.transport.abort()

    async def _answer(self, answer: Answer) -> None:
        headers = {"content-length": str(len(answer.body)), **answer.headers}
        reason = answer.reason or HTTPStatus(answer.status).phrase
        self._put(h11.Response(status_code=answer.status, headers=list(headers.items()), reason=reason))
        if self._wants_body:
            body = answer.body[: answer.sent]
            for start in range(0, len(body), CHUNK):
                self._put(h11.Data(data=body[start : start + CHUNK]))
                await self._writer.drain()
        if answer.sent is None:
            self._put(h11.EndOfMessage())
        await self._writer.drain()

    async def _repeat(self, reply: Endless) -> None:
        self._put(h11.Response(status_code=200, headers=list(reply.headers.items())))
        while not self._writer.is_closing() and not self._reader.at_eof():
            self._put(h11.Data(data=reply.chunk))
            await self._writer.drain()
            await asyncio.sleep(0)


class _TooLarge(Exception):
    pass
