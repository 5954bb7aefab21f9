"""Simulated time: an event loop that never waits, and a Redis whose clock is the loop's."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import fakeredis
from fakeredis._socket import _base
from fakeredis.commands_mixins import server_mixin

from jobs.state.clock import Clock

#: when every simulation begins
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _Selector(selectors.DefaultSelector):
    """Advances the simulated time instead of waiting."""

    loop: SimulatedLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the simulation waits, and nothing will ever happen")
        self.loop.seconds += max(timeout, 0.0)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to the next event. Deterministic, since nothing outside reaches it."""

    def __init__(self) -> None:
        #: seconds since the start
        self.seconds = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.seconds

    def call_soon_threadsafe(self, callback, *args, context=None):  # type: ignore[no-untyped-def]
        """There is only one thread."""
        return self.call_soon(callback, *args, context=context)


class SimulatedClock(Clock):
    """The clock of a repository, which may be a little ahead or behind in each process."""

    def __init__(self, loop: SimulatedLoop, ahead_seconds: float = 0.0) -> None:
        super().__init__()
        self._loop = loop
        self._ahead_seconds = ahead_seconds

    @property
    def is_fresh(self) -> bool:
        return True

    def set(self, redis_ms: int) -> None:
        """Ignored: this clock is always right."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.seconds + self._ahead_seconds)


@contextmanager
def simulated_redis(loop: SimulatedLoop) -> Iterator[fakeredis.FakeServer]:
    """A Redis whose TIME and expiries follow the loop: fakeredis reads the module `time`, which is replaced."""
    clock = SimpleNamespace(time=lambda: EPOCH.timestamp() + loop.seconds, monotonic=lambda: loop.seconds)
    original = _base.time, server_mixin.time
    _base.time = server_mixin.time = clock
    try:
        yield fakeredis.FakeServer()
    finally:
        _base.time, server_mixin.time = original
