"""HostLimiter for what goes out to hosts that somebody else chose: a slow or a dead one takes no other's.

A host that answered the last time has more places, and its own share of all; one that did not, or that nobody knows yet, has
few. So whoever names a thousand dead hosts keeps only those waiting that nobody has heard of.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

#: hosts of which is remembered that they answered
_REMEMBERED = 10_000


@dataclass
class Share:
    """HostLimiter of one kind: so many for each host, so many in all."""

    per_host: int
    in_all: int
    _taken: Counter[str] = field(default_factory=Counter)

    def take(self, host: str) -> bool:
        """Takes a place, if there is one."""
        free = self._taken[host] < self.per_host and self._taken.total() < self.in_all
        self._taken[host] += free
        self._forget(host)
        return free

    def free(self, host: str) -> None:
        """Gives a place back."""
        self._taken[host] -= 1
        self._forget(host)

    def _forget(self, host: str) -> None:
        if not self._taken[host]:
            del self._taken[host]


@dataclass
class HostLimiter:
    """The places of one process. For one event loop."""

    #: of hosts that answered the last time
    proven: Share = field(default_factory=lambda: Share(8, 256))
    #: of all others
    others: Share = field(default_factory=lambda: Share(2, 64))
    #: how many may wait for a place: at one host, and in all
    line_per_host: int = 64
    line_in_all: int = 256
    #: and for how long
    wait_seconds: float = 1.5
    _answering: dict[str, None] = field(default_factory=dict)
    _lines: dict[str, deque[asyncio.Future[Share]]] = field(default_factory=dict)
    _waiting: int = 0

    def heard(self, host: str, *, answered: bool) -> None:
        """How an exchange with the host ended."""
        self._answering.pop(host, None)
        if answered:
            self._answering[host] = None
            if len(self._answering) > _REMEMBERED:
                del self._answering[next(iter(self._answering))]

    @asynccontextmanager
    async def place(self, host: str) -> AsyncIterator[bool]:
        """A place at a host, after a short wait where there is none; the value says whether there was one."""
        share = self._taken(host) or await self._waited(host)
        try:
            yield share is not None
        finally:
            if share is not None:
                self._left(host, share)

    def _taken(self, host: str) -> Share | None:
        share = self.proven if host in self._answering else self.others
        return share if share.take(host) else None

    async def _waited(self, host: str) -> Share | None:
        line = self._lines.get(host, ())
        if len(line) >= self.line_per_host or self._waiting >= self.line_in_all:
            return None
        mine: asyncio.Future[Share] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(host, deque()).append(mine)
        self._waiting += 1
        try:
            async with asyncio.timeout(self.wait_seconds):
                return await mine
        except TimeoutError:
            return mine.result() if _has(mine) else None
        except asyncio.CancelledError:
            if _has(mine):
                self._left(host, mine.result())
            raise
        finally:
            self._waiting -= 1
            self._leave_line(host, mine)

    def _leave_line(self, host: str, mine: asyncio.Future[Share]) -> None:
        line = self._lines.get(host, deque())
        with suppress(ValueError):
            line.remove(mine)
        if not line:
            self._lines.pop(host, None)

    def _left(self, host: str, share: Share) -> None:
        """Gives a place back, and what is free now to those at the head of the line."""
        share.free(host)
        line = self._lines.get(host, deque())
        while line:
            if line[0].done():
                line.popleft()
            elif (free := self._taken(host)) is not None:
                line.popleft().set_result(free)
            else:
                return


def _has(waiting: asyncio.Future[Share]) -> bool:
    """Whether it was given a place, be it too late."""
    return waiting.done() and not waiting.cancelled()
