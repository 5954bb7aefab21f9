"""Places for what goes out to hosts that somebody else chose: a slow or a dead one takes no other's.

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
    """Places of one kind: so many for each host, so many in all."""

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
class Places:
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
    _lines: dict[str, deque[asyncio.Future[None]]] = field(default_factory=dict)
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
                share.free(host)
                self._call(host)

    def _taken(self, host: str) -> Share | None:
        share = self.proven if host in self._answering else self.others
        return share if share.take(host) else None

    async def _waited(self, host: str) -> Share | None:
        line = self._lines.setdefault(host, deque())
        share = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self.wait_seconds):
                while share is None and len(line) < self.line_per_host and self._waiting < self.line_in_all:
                    await self._turn(line)
                    share = self._taken(host)
        if not line:
            self._lines.pop(host, None)
        return share

    async def _turn(self, line: deque[asyncio.Future[None]]) -> None:
        """Waits until somebody leaves a place of the line's host."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(mine)
        self._waiting += 1
        try:
            await mine
        finally:
            self._waiting -= 1
            line.remove(mine)

    def _call(self, host: str) -> None:
        """Calls those at the head of the line; the host may have more places than before."""
        for waiting in list(self._lines.get(host, ()))[: self.proven.per_host]:
            if not waiting.done():
                waiting.set_result(None)
