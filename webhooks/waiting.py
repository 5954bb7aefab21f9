"""A bound on the threads that wait, for a job or for a request's body, so that callbacks always find a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jobs import SettingsError

#: the longest wait of one request, in seconds
MAX_WAIT_SECONDS = 60.0
#: the number of threads when nothing says how many the server has
DEFAULT_THREADS = 4
#: the server's own setting; a WSGI application cannot learn the number in another way
THREADS_VARIABLE = "GRANIAN_BLOCKING_THREADS"
#: how long a request waits for its turn to read a small body, in seconds
READ_TURN_SECONDS = 0.05


def thread_count(environ: Mapping[str, str]) -> int:
    """The number of threads of this process that answer requests. Raises SettingsError when the variable is malformed."""
    value = environ.get(THREADS_VARIABLE) or str(DEFAULT_THREADS)
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise SettingsError(THREADS_VARIABLE, f"{value[:20]!r} is not a number of threads", "32")
    return int(value)


class WaitingThreads:
    """Bounds how many threads wait at a time. Thread-safe.

    At least a quarter of all threads never wait for jobs. Reading a body is waiting too, for servers do not end it in time:
    when the other three quarters are taken, half of that quarter may read bodies, and the other half serves callbacks alone.
    """

    def __init__(self, threads: int) -> None:
        reserved = -(-threads // 4)
        #: how many threads may wait at a time
        self.limit = threads - reserved
        self._free = threading.Semaphore(self.limit)
        self._reading = threading.Semaphore(max(1, reserved // 2))

    @contextmanager
    def wait(self) -> Iterator[bool]:
        """Let this thread wait during the block, unless too many wait already; yields whether it may."""
        acquired = self._free.acquire(blocking=False)
        try:
            yield acquired
        finally:
            if acquired:
                self._free.release()

    @contextmanager
    def read(self) -> Iterator[bool]:
        """Let this thread read a small body during the block; yields whether it may, after READ_TURN_SECONDS at most."""
        if self._reading.acquire(blocking=False):
            acquired = self._reading
        elif self._free.acquire(blocking=False):
            acquired = self._free
        elif self._reading.acquire(timeout=READ_TURN_SECONDS):
            acquired = self._reading
        else:
            yield False
            return
        try:
            yield True
        finally:
            acquired.release()
