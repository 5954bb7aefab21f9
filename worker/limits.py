"""The bounds of a process: how many jobs it runs at once, and how many bytes of images it holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class ConcurrencyLimit:
    """Admits a limited number of jobs at once, each job once. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: set[str] = set()
        self._open = True
        #: how often a slot was asked for with `wait`
        self.requests = 0
        self._changed = threading.Condition()

    def acquire(self, job_id: str, *, wait: bool) -> bool:
        """Take a slot for the job, and return whether it has a new one.

        False means that the job already has a slot, that none is free (and `wait` is not set), or that the limit is closed.
        """
        with self._changed:
            self.requests += wait
            while wait and self._open and len(self._held) >= self._limit:
                self._changed.wait()
            if not self._open or job_id in self._held or len(self._held) >= self._limit:
                return False
            self._held.add(job_id)
            return True

    def release(self, job_id: str) -> None:
        """Free the job's slot."""
        with self._changed:
            self._held.discard(job_id)
            self._changed.notify_all()

    def close(self) -> None:
        """Admit nothing from now on; those that wait for a slot get none."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    @property
    def room(self) -> int:
        """How many slots are free."""
        return self._limit - len(self._held) if self._open else 0

    @property
    def held(self) -> frozenset[str]:
        """The jobs that have a slot."""
        with self._changed:
            return frozenset(self._held)


class MemoryBudget:
    """Bounds the bytes of images that a process holds at once. For one event loop.

    A task that holds some bytes and needs more waits as a new one does, except for one task at a time: that one may exceed the
    limit, so that it ends and frees everything. So tasks never wait for each other in a circle, and the limit is exceeded by one
    answer at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: the bytes that are reserved now
        self.reserved = 0
        #: the reservation that exceeds the limit
        self._exceeding: object | None = None
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reservation(self) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """Yield a function that reserves a number of bytes, waiting until they are free; the end of the block frees all."""
        own = _Reservation()

        async def reserve(size: int) -> None:
            size = min(size, self._limit)

            def fits() -> bool:
                within = self.reserved + size <= self._limit
                may_exceed = self._exceeding is own or (own.size > 0 and self._exceeding is None)
                return within or self.reserved == 0 or may_exceed

            async with self._changed:
                await self._changed.wait_for(fits)
                if self.reserved + size > self._limit:
                    self._exceeding = own
                self.reserved += size
                own.size += size

        try:
            yield reserve
        finally:
            async with self._changed:
                self.reserved -= own.size
                self._exceeding = None if self._exceeding is own else self._exceeding
                self._changed.notify_all()


class _Reservation:
    """The bytes that one task has reserved."""

    size = 0
