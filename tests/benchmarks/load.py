"""Post bodies on a few connections, each as soon as the last one is answered, with little CPU.

`python -m tests.benchmarks.load PORT CONNECTIONS < paths` posts one callback to each path and prints the answers per
second, and how many of them were not 200.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

import uvloop

from .loopback import answer

BODY = answer(9)


class Poster(asyncio.Protocol):
    """One connection, which posts to the next path as soon as the last one is answered."""

    def __init__(self, paths: Iterator[str], done: asyncio.Future[int]) -> None:
        self._paths = paths
        self._done = done
        self._refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        # An answer is far smaller than a segment: head and body come in one or two pieces, and each body ends with a brace.
        if data.startswith(b"HTTP/1.1") and not data.startswith(b"HTTP/1.1 200"):
            self._refused += 1
        if data.endswith(b"}"):
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _next(self) -> None:
        path = next(self._paths, None)
        if path is None:
            self._done.set_result(self._refused)
            self._transport.close()
            return
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._transport.write(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)  # type: ignore[attr-defined]


async def run(port: int, connections: int, paths: list[str]) -> tuple[float, int]:
    """Post to all paths; returns the answers per second, and how many of them were not 200."""
    loop = asyncio.get_running_loop()
    left, ends = iter(paths), [loop.create_future() for _ in range(connections)]
    started = time.perf_counter()
    for end in ends:
        await loop.create_connection(lambda end=end: Poster(left, end), "127.0.0.1", port)  # type: ignore[misc]
    refused = sum(await asyncio.gather(*ends))
    return len(paths) / (time.perf_counter() - started), refused


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(int(sys.argv[1]), int(sys.argv[2]), sys.stdin.read().split()))))
