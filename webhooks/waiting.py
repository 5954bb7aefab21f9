"""Waiting for a job without polling, and without taking the threads that callbacks need.

A process listens to Redis over one connection, however many of its requests wait.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.exceptions import RedisError
from redis.retry import Retry

from jobs import Job, SettingsError
from jobs.state.keys import PREFIX, channel

_log = logging.getLogger("darkroom.webhooks")

#: the longest that one request may wait
MAX_WAIT_SECONDS = 60.0
#: a waiter reads the record at least so often, in case the word of a change was lost
LOOK_SECONDS = 5.0
#: how many threads the server has, when nobody says so
ASSUMED_THREADS = 4
#: the server's own setting, and the one place where it can be learned
THREADS_VARIABLE = "GRANIAN_BLOCKING_THREADS"
#: how long a request waits until its small body may be read
READING_SECONDS = 0.05
#: how long the listener rests when Redis is away
REST_SECONDS = 1.0


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


class Hub:
    """Tells waiting threads that a job changed. One thread and one connection of it serve them all, from the first on.

    That thread alone uses its connection; whoever begins to wait calls it by a message on a channel of its own.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(
            redis_url,
            socket_timeout=10,
            socket_connect_timeout=3,
            socket_keepalive=True,
            health_check_interval=25,
            # Once, at once, for a pooled connection that died with the server: a waiter looks for itself anyway.
            retry=Retry(NoBackoff(), 1),
        )
        self._call = f"{PREFIX}hub:{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        self._events: dict[str, set[threading.Event]] = {}
        self._listening = False

    @contextmanager
    def changes(self, job_id: str) -> Iterator[threading.Event]:
        """An event that is set once the listening has begun, and whenever the job changes; the waiter clears it."""
        name, event = channel(job_id), threading.Event()
        self._join(name, event)
        try:
            yield event
        finally:
            self._leave(name, event)

    def wait(self, job_id: str, read: Callable[[], Job], seconds: float) -> Job:
        """The job once it is final, or as it stands after so many seconds. Raises what `read` raises."""
        give_up_at = time.monotonic() + seconds
        with self.changes(job_id) as changed:
            while True:
                changed.clear()
                job = read()
                left = give_up_at - time.monotonic()
                if job.status.final or left <= 0:
                    return job
                changed.wait(min(left, LOOK_SECONDS))

    def _join(self, name: str, event: threading.Event) -> None:
        with self._lock:
            self._events.setdefault(name, set()).add(event)
            if not self._listening:
                self._listening = True
                threading.Thread(target=self._listen, name="darkroom-hub", daemon=True).start()
        try:
            self._redis.publish(self._call, b"")
        except RedisError as error:
            # The waiter looks for itself meanwhile, and says what it finds.
            _log.warning("nobody could be asked to listen: %s", type(error).__name__)

    def _leave(self, name: str, event: threading.Event) -> None:
        with self._lock:
            self._events[name].discard(event)
            if not self._events[name]:
                del self._events[name]

    def _listen(self) -> None:
        """The thread's life; it ends when nobody has waited for a while, and the next waiter starts another."""
        while not self._idle():
            try:
                with closing(self._redis.pubsub()) as pubsub:  # type: ignore[no-untyped-call]
                    self._pass_on(pubsub)
            except (RedisError, OSError) as error:
                _log.warning("listening to Redis again in %g s: %s", REST_SECONDS, type(error).__name__)
                time.sleep(REST_SECONDS)

    def _idle(self) -> bool:
        with self._lock:
            self._listening = bool(self._events)
            return not self._listening

    def _pass_on(self, pubsub: PubSub) -> None:
        """Passes on what comes until nothing is waited for; a subscription's confirmation counts as a change, for what
        came before it may have been missed."""
        heard: set[str] = set()
        pubsub.subscribe(self._call)
        while (message := pubsub.get_message(timeout=LOOK_SECONDS)) or heard:
            if message is None or message["channel"].decode() == self._call:
                heard = self._followed(pubsub, heard)
            elif message["type"] != "unsubscribe":
                self._tell(message["channel"].decode())

    def _followed(self, pubsub: PubSub, heard: set[str]) -> set[str]:
        """Subscribes to what is waited for now, and to nothing else."""
        with self._lock:
            wanted = set(self._events)
        if wanted - heard:
            pubsub.subscribe(*(wanted - heard))
        if heard - wanted:
            pubsub.unsubscribe(*(heard - wanted))  # type: ignore[no-untyped-call]
        return wanted

    def _tell(self, name: str) -> None:
        with self._lock:
            for event in self._events.get(name, ()):
                event.set()
