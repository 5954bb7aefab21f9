"""Batches the changes that this process makes to its jobs.

One batch at a time is written to Redis, in the thread pool, while the next one is collected. So an idle worker writes at once, and a
busy one writes a hundred records in one round trip and with one change of threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from jobs.job import Job
from jobs.state.repository import Change, Repository, Transition, Update

#: the most changes in a batch: more would delay each of them for longer than they save
_BATCH = 256


class Updates:
    """Writes the changes of one event loop."""

    def __init__(self, repository: Repository, blocking: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._repository = repository
        self._blocking = blocking
        self._waiting: list[tuple[Update, asyncio.Future[Change]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def update(self, job_id: str, change: Transition, *, known: Job | None = None) -> Change:
        """Do what `Repository.update` does, and raise what it raises, in a batch with other changes of this moment."""
        written: asyncio.Future[Change] = asyncio.get_running_loop().create_future()
        self._waiting.append((Update(job_id, change, known), written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await written

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                updates = [update for update, _ in batch]
                try:
                    results = await self._blocking(partial(self._repository.update_all, updates))
                except Exception as error:  # noqa: BLE001 - each caller of `update` gets it
                    results = [error] * len(batch)
                for (_, written), result in zip(batch, results, strict=True):
                    if written.done():
                        continue
                    if isinstance(result, Exception):
                        written.set_exception(result)
                    else:
                        written.set_result(result)
        finally:
            self._writer = None
