"""The changes that this process makes to its jobs, written together.

One batch at a time is on its way to Redis, on the thread pool; meanwhile the next one gathers. So an idle worker writes at once,
and a busy one writes a hundred records in one round trip and one change of threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from jobs.job import Job
from jobs.state.repository import Change, Repository, Transition, Update

#: changes in one batch: more would make each wait for longer than they save
_BATCH = 256


class Updates:
    """Writes the changes of one event loop."""

    def __init__(self, repository: Repository, blocking: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._repository = repository
        self._blocking = blocking
        self._gathered: list[tuple[Update, asyncio.Future[Change]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def update(self, job_id: str, change: Transition, *, known: Job | None = None) -> Change:
        """What `Repository.update` does, and raises, together with the other changes of this moment."""
        end: asyncio.Future[Change] = asyncio.get_running_loop().create_future()
        self._gathered.append((Update(job_id, change, known), end))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await end

    async def _write(self) -> None:
        try:
            while self._gathered:
                batch, self._gathered = self._gathered[:_BATCH], self._gathered[_BATCH:]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[tuple[Update, asyncio.Future[Change]]]) -> None:
        updates = [update for update, _ in batch]
        try:
            ends = await self._blocking(lambda: self._repository.update_all(updates))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            ends = [error] * len(batch)
        for (_, future), end in zip(batch, ends, strict=True):
            if not future.done():
                _settle(future, end)


def _settle(future: asyncio.Future[Change], end: Change | Exception) -> None:
    if isinstance(end, Change):
        future.set_result(end)
    else:
        future.set_exception(end)
