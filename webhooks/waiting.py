"""Seats for waiting requests, so that they never take the threads that callbacks need."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jobs import SettingsError

#: the longest that one request may wait
MAX_WAIT_SECONDS = 60.0
#: how many threads the server has, when nobody says so
ASSUMED_THREADS = 4
#: the server's own setting, and the one place where it can be learned
THREADS_VARIABLE = "GRANIAN_BLOCKING_THREADS"
#: how long a request waits until its small body may be read
READING_SECONDS = 0.05


def threads_of(environ: Mapping[str, str]) -> int:
    """How many threads of this process answer requests. Raises SettingsError when the variable is no number."""
    value = environ.get(THREADS_VARIABLE) or str(ASSUMED_THREADS)
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise SettingsError(THREADS_VARIABLE, f"{value[:20]!r} is no number of threads", "32")
    return int(value)


class Waiters:
    """Counts whoever waits, for a job or for a body; at least a quarter of the threads are never given to waiters. Thread-safe.

    No server of ours ends the reading of a body in time, so readers are counted too: half of that quarter is theirs
    when all seats are taken, the other half is for callbacks alone.
    """

    def __init__(self, threads: int) -> None:
        kept = -(-threads // 4)
        #: how many may wait at once
        self.seats = threads - kept
        self._readers = threading.BoundedSemaphore(max(1, kept // 2))
        self._free = threading.BoundedSemaphore(self.seats) if self.seats else None

    @contextmanager
    def seat(self) -> Iterator[bool]:
        """Whether there was a free seat; it is given back at the end."""
        taken = self._free is not None and self._free.acquire(blocking=False)
        try:
            yield taken
        finally:
            if self._free is not None and taken:
                self._free.release()

    @contextmanager
    def reading(self) -> Iterator[bool]:
        """Whether a small body may be read now; it waits a moment for that."""
        if self._readers.acquire(blocking=False):
            taken = self._readers
        elif self._free is not None and self._free.acquire(blocking=False):
            taken = self._free
        elif self._readers.acquire(timeout=READING_SECONDS):
            taken = self._readers
        else:
            yield False
            return
        try:
            yield True
        finally:
            taken.release()
