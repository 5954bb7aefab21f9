"""Slots for connections to hosts that users chose, so that a slow or dead host takes none from others.

Hosts that answered the latest request share one pool, with more slots for each; new hosts and those that did not answer share another,
with few. So a thousand dead hosts delay only one another.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

#: how many hosts are remembered to have answered
_REMEMBERED = 10_000


@dataclass
class HostPool:
    """The slots of one kind of hosts."""

    per_host: int
    total: int
    _used: Counter[str] = field(default_factory=Counter)

    def acquire(self, host: str) -> bool:
        """Take a slot, and return whether one was free."""
        free = self._used[host] < self.per_host and self._used.total() < self.total
        self._used[host] += free
        self._forget(host)
        return free

    def release(self, host: str) -> None:
        """Free a slot."""
        self._used[host] -= 1
        self._forget(host)

    def _forget(self, host: str) -> None:
        if not self._used[host]:
            del self._used[host]


@dataclass
class HostLimiter:
    """The slots of one process. For one event loop."""

    #: for hosts that answered the latest request
    proven: HostPool = field(default_factory=lambda: HostPool(8, 256))
    #: for all others
    others: HostPool = field(default_factory=lambda: HostPool(2, 64))
    #: how many requests may wait for a slot, for one host and in total
    max_waiting_per_host: int = 64
    max_waiting: int = 256
    #: how long a request waits for a slot, in seconds
    wait_seconds: float = 1.5
    _answering: dict[str, None] = field(default_factory=dict)
    _queues: dict[str, deque[asyncio.Future[HostPool]]] = field(default_factory=dict)
    _waiting: int = 0

    def record(self, host: str, *, answered: bool) -> None:
        """Remember whether the host answered a request."""
        self._answering.pop(host, None)
        if answered:
            self._answering[host] = None
            if len(self._answering) > _REMEMBERED:
                del self._answering[next(iter(self._answering))]

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[bool]:
        """Hold a slot for the host during the block, after a short wait if none is free; yields whether there was one."""
        pool = self._acquire(host) or await self._wait(host)
        try:
            yield pool is not None
        finally:
            if pool is not None:
                self._release(host, pool)

    def _acquire(self, host: str) -> HostPool | None:
        pool = self.proven if host in self._answering else self.others
        return pool if pool.acquire(host) else None

    async def _wait(self, host: str) -> HostPool | None:
        if len(self._queues.get(host, ())) >= self.max_waiting_per_host or self._waiting >= self.max_waiting:
            return None
        own: asyncio.Future[HostPool] = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(host, deque())
        queue.append(own)
        self._waiting += 1
        try:
            async with asyncio.timeout(self.wait_seconds):
                return await own
        except TimeoutError:
            return own.result() if _has_slot(own) else None
        except asyncio.CancelledError:
            if _has_slot(own):
                self._release(host, own.result())
            raise
        finally:
            self._waiting -= 1
            with suppress(ValueError):
                queue.remove(own)
            if not queue and self._queues.get(host) is queue:
                del self._queues[host]

    def _release(self, host: str, pool: HostPool) -> None:
        """Free a slot, and give the free ones to the first in the queue."""
        pool.release(host)
        queue = self._queues.get(host, deque())
        while queue:
            if queue[0].done():
                queue.popleft()
            elif (free := self._acquire(host)) is not None:
                queue.popleft().set_result(free)
            else:
                return


def _has_slot(waiting: asyncio.Future[HostPool]) -> bool:
    """Whether the request was given a slot, perhaps too late."""
    return waiting.done() and not waiting.cancelled()
