"""What bounds a process: how many jobs it has in hand, and how many bytes of images."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class ConcurrencyLimit:
    """The jobs that a process has in hand: at most so many, each once. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: set[str] = set()
        self._open = True
        #: how often somebody came who would wait
        self.asked = 0
        self._changed = threading.Condition()

    def take(self, job_id: str, *, wait: bool) -> bool:
        """Takes a slot for the job. False: it has one, there is none free (and `wait` is not set), or we are closed."""
        with self._changed:
            self.asked += wait
            while wait and self._open and len(self._taken) >= self._limit:
                self._changed.wait()
            if not self._open or job_id in self._taken or len(self._taken) >= self._limit:
                return False
            self._taken.add(job_id)
            return True

    def free(self, job_id: str) -> None:
        """Gives the job's slot back."""
        with self._changed:
            self._taken.discard(job_id)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is taken from now on; whoever waits is let go."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    @property
    def room(self) -> int:
        return self._limit - len(self._taken) if self._open else 0

    @property
    def taken(self) -> frozenset[str]:
        with self._changed:
            return frozenset(self._taken)


class MemoryBudget:
    """The bytes of images that a process holds at once. For one event loop.

    Whoever holds some and needs more waits as a newcomer does, but for one at a time: that one goes on over the limit, ends
    and gives all back. So holders never wait for each other in a ring, and the limit is passed by one answer at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        #: the holder that is over the limit
        self._over: object | None = None
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """The value reserves so many bytes, waiting until there is room; all are given back at the end."""
        mine = _Held()

        async def reserve(size: int) -> None:
            size = min(size, self._limit)
            async with self._freed:
                await self._freed.wait_for(lambda: self._fits(mine, size))
                if self._held + size > self._limit:
                    self._over = mine
                self._held += size
                mine.size += size

        try:
            yield reserve
        finally:
            async with self._freed:
                self._held -= mine.size
                self._over = None if self._over is mine else self._over
                self._freed.notify_all()

    def _fits(self, holder: _Held, size: int) -> bool:
        within = self._held + size <= self._limit
        return within or self._held == 0 or self._over is holder or (holder.size > 0 and self._over is None)


class _Held:
    """What one holder has reserved."""

    size = 0
