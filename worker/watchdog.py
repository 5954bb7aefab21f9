"""Ends a worker that no longer works although its process lives; its supervisor starts a fresh one.

Two things can stop silently: the event loop, and Celery's consumer (a connection that is dead and does not know it). The sweep
feeds both observations; Redis being away counts as neither, since nobody works then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: the exit code of a worker that its watchdog ended (EX_SOFTWARE)
EXIT_CODE = 70


@dataclass
class Watchdog:
    """Remembers when each part was last seen to work. `patience_seconds` is how long either may be silent."""

    patience_seconds: float
    clock: Callable[[], float] = time.monotonic
    _consumed: int = -1
    _consuming_at: float = field(default=0.0)
    _looped_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._consuming_at = self._looped_at = self.clock()

    def looped(self) -> None:
        """The event loop answered."""
        self._looped_at = self.clock()

    def rested(self) -> None:
        """Redis is away: nobody can be expected to work."""
        self._consuming_at = self._looped_at = self.clock()

    def observed(self, *, waiting: int, room: int, consumed: int) -> None:
        """So many messages wait for us, we have room for so many jobs, and have taken so many messages so far."""
        if consumed != self._consumed or not waiting or room <= 0:
            self._consumed = consumed
            self._consuming_at = self.clock()

    @property
    def verdict(self) -> str | None:
        """What has stopped, or None while all is well."""
        now = self.clock()
        if now - self._looped_at > self.patience_seconds:
            return f"the event loop has not answered for {self.patience_seconds:g} s"
        if now - self._consuming_at > self.patience_seconds:
            return f"messages wait, but none has been taken for {self.patience_seconds:g} s"
        return None
