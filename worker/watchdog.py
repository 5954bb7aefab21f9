"""Ends a worker that no longer works although its process lives, so that its supervisor starts a new one.

Two parts can stop silently: the event loop, and Celery's consumer, whose connection may be dead without its knowledge. The watchdog
only acts on evidence. The loop has stopped when it does not run what it is given. The consumer has stopped when the broker itself
says, again and again, that messages wait, while this process has room for jobs and receives none. A broker that cannot be asked
proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from celery import Celery
from kombu import Connection

from .limits import ConcurrencyLimit

log = logging.getLogger(__name__)

#: the exit code of a worker that its watchdog has ended (EX_SOFTWARE)
EXIT_CODE = 70
#: how long such a worker may take to finish what is in progress, in seconds
END_SECONDS = 60.0


@dataclass
class Watchdog:
    """Judges from observations whether a part of the process has stopped."""

    #: how long a part may be silent, in seconds
    timeout_seconds: float
    clock: Callable[[], float] = time.monotonic
    #: when the loop was given something that it has not run yet
    _loop_asked_at: float | None = None
    _received: int = -1
    #: the first and the last observation in a row that shows an idle consumer beside waiting messages
    _idle_since: float | None = None
    _idle_until: float = 0.0

    def ask_loop(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """Give the event loop something to run, unless it still has not run the last one."""
        if self._loop_asked_at is None:
            self._loop_asked_at = self.clock()
            call_soon(lambda: setattr(self, "_loop_asked_at", None))

    def excuse(self) -> None:
        """Start over: Redis is away, and no progress can be expected."""
        self._loop_asked_at = self._idle_since = None

    def observe_consumer(self, *, waiting: int | None, room: int, received: int) -> None:
        """Compare the queues with this process.

        `waiting` is how many messages the broker holds for it, None when it did not say; `room` is how many more jobs the process
        could run; `received` is how many messages it has received since its start.
        """
        if not waiting or room <= 0 or received != self._received:
            self._received, self._idle_since = received, None
            return
        self._idle_until = self.clock()
        if self._idle_since is None:
            self._idle_since = self._idle_until

    @property
    def verdict(self) -> str | None:
        """What has stopped, or None."""
        if self._loop_asked_at is not None and self.clock() - self._loop_asked_at > self.timeout_seconds:
            return f"the event loop has not answered for {self.timeout_seconds:g} s"
        if self._idle_since is not None and self._idle_until - self._idle_since > self.timeout_seconds:
            return f"messages are waiting, but none has been received for {self.timeout_seconds:g} s"
        return None


class Backlog:
    """Counts the messages in a worker's queues, with any broker, by passive declarations."""

    def __init__(self, app: Celery, queues: Sequence[str]) -> None:
        self._app = app
        self._queues = queues
        self._connection: Connection | None = None

    def count(self) -> int | None:
        """Return how many messages wait for a consumer; None when the broker cannot be asked."""
        waiting = 0
        try:
            if self._connection is None:
                self._connection = self._app.connection_for_read(heartbeat=0)
                self._connection.connect()
            for name in self._queues:
                with suppress(self._connection.channel_errors):  # no such queue: Redis has none that is empty
                    waiting += self._connection.default_channel.queue_declare(name, passive=True).message_count
        except Exception as error:  # noqa: BLE001 - each broker's client has its own
            log.info("the broker does not say how many messages wait: %s", type(error).__name__)
            self.close()
            return None
        return waiting

    def close(self) -> None:
        """Close the connection; the next count opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # the broker may be gone
                connection.release()


@dataclass
class WatchdogService:
    """Observes the loop and the consumer of this process, and ends it when one of them has stopped."""

    watchdog: Watchdog
    loop: asyncio.AbstractEventLoop
    backlog: Backlog
    running: ConcurrencyLimit
    #: whether Redis has answered the latest sweep
    redis_answers: Callable[[], bool]
    #: finishes what can be finished
    stop: Callable[[], None]
    name: str = "watchdog"
    interval_seconds: float = 2.0

    def run_once(self) -> bool:
        """Observe both, and judge."""
        if not self.redis_answers():
            self.watchdog.excuse()
            return False
        self.watchdog.ask_loop(self.loop.call_soon_threadsafe)
        received = self.running.requests
        self.watchdog.observe_consumer(waiting=self.backlog.count(), room=self.running.room, received=received)
        if (verdict := self.watchdog.verdict) is not None:
            log.critical("this worker ends itself, exit code %d: %s", EXIT_CODE, verdict)
            self.watchdog.excuse()
            threading.Thread(target=self.end, name="end").start()
        return False

    def end(self) -> None:
        """Finish what can be finished, and end the process even if something is stuck."""
        threading.Timer(END_SECONDS, os._exit, [EXIT_CODE]).start()
        self.stop()
        logging.shutdown()  # writes what is logged; `_exit` does not
        os._exit(EXIT_CODE)
