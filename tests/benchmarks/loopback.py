"""The other side of every benchmark, with little CPU: a provider, the host of its images, and an S3 storage in one process.

`python -m tests.benchmarks.loopback PORT LATENCY_SECONDS` answers

    POST  after the latency, as DeepMode answers a synchronous call: one image, whose URL leads back here;
          with `-acknowledge`, as it answers a call that has a callback
    GET   with a JPEG of 1 MB
    PUT   with the digest that S3 answers; the body is dropped
    GET /figures, with what it has counted

It is an asyncio protocol without a web framework, so that the benchmarks measure Darkroom and not this server.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field

import uvloop
from PIL import Image


@dataclass
class Figures:
    """What the server has counted; times are seconds of its monotonic clock."""

    calls: int = 0
    answered: int = 0
    puts: int = 0
    most_in_flight: int = 0
    first_call_at: float = 0.0
    #: when the first byte of the latest call came
    first_byte_at: float = 0.0
    last_put_at: float = 0.0
    #: when each hundredth call was answered
    hundredths_at: list[float] = field(default_factory=list)

    def count_call(self, first_byte_at: float) -> None:
        self.first_byte_at = first_byte_at
        self.first_call_at = self.first_call_at or first_byte_at
        self.calls += 1
        self.most_in_flight = max(self.most_in_flight, self.calls - self.answered)

    def count_answer(self) -> None:
        self.answered += 1
        if self.answered % 100 == 0:
            self.hundredths_at.append(time.monotonic())

    def count_put(self) -> None:
        self.puts += 1
        self.last_put_at = time.monotonic()


@dataclass
class World:
    """What all connections of the server share."""

    latency_seconds: float
    answer: bytes
    image: bytes
    figures: Figures


class Exchange(asyncio.Protocol):
    """One connection with one request after the other, whose bodies are dropped."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._head = b""
        self._body_left = 0
        self._request = b""
        self._first_byte_at = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._body_left:
            self._drop(len(data))
            return
        if not self._head:
            self._first_byte_at = time.monotonic()
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        self._request, rest, self._head = self._head[:end], len(self._head) - end - 4, b""
        self._body_left = _content_length(self._request)
        if b"100-continue" in self._request:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._drop(rest)

    def _drop(self, size: int) -> None:
        self._body_left -= size
        if self._body_left <= 0:
            self._body_left = 0
            self._act()

    def _act(self) -> None:
        method, path, _ = self._request.split(b" ", 2)
        world = self._world
        if method == b"POST":
            world.figures.count_call(self._first_byte_at)
            asyncio.get_running_loop().call_later(world.latency_seconds, self._answer_call)
        elif method == b"PUT":
            world.figures.count_put()
            self._write(b"", b'ETag: "d41d8cd98f00b204e9800998ecf8427e"\r\n')
        elif path == b"/figures":
            self._write(json.dumps(asdict(world.figures)).encode())
            world.figures = world.figures if b"keep" in self._request else Figures()
        else:
            self._write(world.image, b"Content-Type: image/jpeg\r\n")

    def _answer_call(self) -> None:
        self._world.figures.count_answer()
        self._write(self._world.answer, b"Content-Type: application/json\r\n")

    def _write(self, body: bytes, headers: bytes = b"") -> None:
        if self._transport.is_closing():
            return
        self._transport.writelines([b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body), body])
        if b"\r\nconnection: close" in self._request.lower():
            self._transport.close()


def _content_length(head: bytes) -> int:
    _, _, value = head.lower().partition(b"\r\ncontent-length:")
    return int(value.split(b"\r\n", 1)[0] or 0)


def image() -> bytes:
    """A JPEG of 1 MB: noise, which cannot be compressed, the same in every run."""
    side = 944
    noise = random.Random(1).randbytes(side * side * 3)
    content = io.BytesIO()
    Image.frombytes("RGB", (side, side), noise).save(content, "JPEG", quality=95)
    return content.getvalue()


def answer(port: int) -> bytes:
    """DeepMode's answer to a synchronous call for one image."""
    offered = {
        "id": "6b2c3f0e9d",
        "file_name": "6b2c3f0e9d.jpeg",
        "model_id": "b8a9f7e5d1c3a2f91e3d5",
        "image_url": f"http://127.0.0.1:{port}/image.jpeg?sig=a%2Fb%3D",
        "prompt": "a lake at dawn",
        "negative_prompt": "",
        "upscaled": False,
        "ratio": "portrait",
    }
    return json.dumps({"images": [offered]}).encode()


ACKNOWLEDGEMENT = b'{"message":"Generating images..."}'


async def serve(port: int, latency_seconds: float, *, acknowledges: bool) -> None:
    """Serve until the process ends."""
    body = ACKNOWLEDGEMENT if acknowledges else answer(port)
    world = World(latency_seconds, body, image(), Figures())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Exchange(world), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]), acknowledges="-acknowledge" in sys.argv[3:]))
