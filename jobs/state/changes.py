"""One subscription to changes of jobs for all waiters of a process.

A thousand threads that wait hold one connection to Redis and one thread. Both are made when the first waiter comes, and end
when none has come for a while.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from redis import Redis
from redis.client import PubSub

from .connection import backoff_seconds
from .keys import channel

_log = logging.getLogger(__name__)

#: a wait ends after so many seconds at most, for a published change may be lost: read the record and wait again
CHECK_SECONDS = 5.0
#: the listener looks for new waiters at least so often, in seconds; a change in the meantime is not missed
JOIN_SECONDS = 0.05
#: the listener hangs up after so many seconds without a waiter
IDLE_SECONDS = 5.0


class Waiter:
    """Waits for changes of the jobs that it was made for."""

    def __init__(self) -> None:
        self._changed = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait until one of the jobs may have changed, at most `seconds` and at most CHECK_SECONDS.

        Returns whether a change was signaled. Call it between two reads of the record: it returns at once when the job has
        changed since the last call, and when the subscription has (again) begun.
        """
        signaled = self._changed.wait(max(0.0, min(seconds, CHECK_SECONDS)))
        self._changed.clear()
        return signaled

    def wake(self) -> None:
        """End the wait."""
        self._changed.set()


class Changes:
    """Wakes threads when their jobs change. Thread-safe, and safe across a fork.

    While Redis is away, waits end after CHECK_SECONDS; when it is back, all waiters are woken.
    """

    _lock: threading.Lock
    _waiters: dict[str, set[Waiter]]
    #: set when the subscriptions differ from what the waiters wait for
    _stale: threading.Event
    _listener: threading.Thread | None

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._closed = threading.Event()
        self._start_over()
        _instances.add(self)

    @contextmanager
    def listen(self, *job_ids: str) -> Iterator[Waiter]:
        """A waiter for changes of these jobs, for as long as the block runs. Never waits for Redis itself."""
        waiter, channels = Waiter(), [channel(job_id) for job_id in job_ids]
        with self._lock:
            for name in channels:
                self._waiters.setdefault(name, set()).add(waiter)
            if self._listener is None and not self._closed.is_set():
                self._listener = threading.Thread(target=self._listen, name="darkroom-changes", daemon=True)
                self._listener.start()
        self._stale.set()
        try:
            yield waiter
        finally:
            with self._lock:
                for name in channels:
                    self._waiters.get(name, set()).discard(waiter)
                    if not self._waiters.get(name):
                        self._waiters.pop(name, None)
            self._stale.set()

    def close(self) -> None:
        """Wake all waiters, end the listener and hang up; from then on waits end after CHECK_SECONDS only."""
        self._closed.set()
        self._stale.set()
        with self._lock:
            listener = self._listener
            self._wake(*self._waiters)
        if listener is not None:
            listener.join()

    def _start_over(self) -> None:
        """Forget the waiters, and the listener: after a fork they are those of the parent."""
        self._lock, self._stale = threading.Lock(), threading.Event()
        self._waiters, self._listener = {}, None

    def _listen(self) -> None:
        failures = 0
        while self._has_waiters():
            try:
                with self._redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # redis-py has no types here
                    for name in self._changed_channels(pubsub):
                        failures = 0
                        with self._lock:
                            self._wake(name)
            except Exception as error:  # noqa: BLE001 - without this thread nobody would be woken any more
                failures += 1
                pause = backoff_seconds(failures)
                _log.warning("lost the subscription to changes of jobs (%s); retrying in %g s", error, pause)
                self._closed.wait(pause)

    def _has_waiters(self) -> bool:
        """Whether the listener goes on; if not, the next waiter starts another."""
        with self._lock:
            if not self._waiters or self._closed.is_set():
                self._listener = None
            return self._listener is not None

    def _changed_channels(self, pubsub: PubSub) -> Iterator[str]:
        """The channels of jobs that may have changed, until nobody has waited for IDLE_SECONDS or all is closed.

        A confirmed subscription counts as a change, for an earlier one may have been missed.
        """
        subscribed: set[str] = set()
        self._stale.set()
        while not self._closed.is_set() and (subscribed or self._stale.wait(IDLE_SECONDS)):
            if self._stale.is_set():
                self._stale.clear()
                with self._lock:
                    wanted = set(self._waiters)
                if wanted - subscribed:
                    pubsub.subscribe(*(wanted - subscribed))
                if subscribed - wanted:
                    pubsub.unsubscribe(*(subscribed - wanted))  # type: ignore[no-untyped-call]  # redis-py has no types here
                subscribed = wanted
            message = pubsub.get_message(timeout=JOIN_SECONDS) if subscribed else None
            if message is not None and message["type"] != "unsubscribe":
                yield message["channel"].decode()

    def _wake(self, *channels: str) -> None:
        for name in channels:
            for waiter in self._waiters.get(name, ()):
                waiter.wake()


_instances: WeakSet[Changes] = WeakSet()


def _start_over_after_fork() -> None:
    for changes in _instances:
        changes._start_over()


os.register_at_fork(after_in_child=_start_over_after_fork)
