"""Callbacks that arrive while Redis is away: written to this host's disk, and applied in order when Redis is back."""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs import JobNotFound, RedisUnavailable, Unavailable
from jobs.errors import InvalidCallback, InvalidToken
from jobs.storage.spool import Spool

_log = logging.getLogger("darkroom.webhooks")

#: the pause between two replays, in seconds
REPLAY_SECONDS = 1.0
#: for so many seconds after Redis did not answer, callbacks go straight to the disk
AWAY_SECONDS = 1.0


class CallbackSpool:
    """The callbacks of one host that wait for Redis. Thread-safe; processes share the folder, and take turns to replay it."""

    def __init__(self, spool: Spool, apply: Callable[[str, int, bytes], object]) -> None:
        """`apply` applies a callback to its job: job id, number of the attempt, body."""
        self._spool = spool
        self._apply = apply
        self._away_until = 0.0
        #: names of files that cannot be read as callbacks, and are left alone
        self._unreadable: set[str] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="darkroom-replay", daemon=True)

    @property
    def redis_is_away(self) -> bool:
        """Whether Redis did not answer a moment ago."""
        return time.monotonic() < self._away_until

    def __len__(self) -> int:
        """How many callbacks wait."""
        return len(self._spool.names())

    def write(self, job_id: str, attempt: int, body: bytes) -> None:
        """Write a callback whose token was verified to the disk. Raises SpoolFull or OSError."""
        self._away_until = time.monotonic() + AWAY_SECONDS
        callback = {"job_id": job_id, "attempt": attempt, "body": base64.b64encode(body).decode()}
        self._spool.write(f"{time.time_ns():020d}-", json.dumps(callback).encode())

    def start(self) -> None:
        """Replay every second, in a thread of its own, until `close`."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, after the callback that it is working on."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(REPLAY_SECONDS):
            try:
                self.replay()
            except Exception:  # noqa: BLE001 - the thread must survive, or callbacks would wait for a restart
                _log.exception("could not replay spooled callbacks")

    def replay(self) -> int:
        """Apply the callbacks on the disk, oldest first, until Redis is away again; return how many.

        Returns 0 while another process replays. A callback that cannot be applied yet stays, and does not stop the others.
        """
        applied = 0
        with self._turn() as names:
            for name in names:
                if self._closed.is_set():
                    break
                try:
                    applied += self._replay(name)
                except RedisUnavailable:
                    break
                except Unavailable as error:  # for example, the job's record was written by a later version
                    _log.warning("a spooled callback has to wait: %s", error)
        return applied

    def _replay(self, name: str) -> bool:
        """Apply one callback and delete its file. Raises Unavailable."""
        if name in self._unreadable:
            return False
        try:
            callback = json.loads(self._spool.read(name))
            job_id, attempt, body = callback["job_id"], callback["attempt"], base64.b64decode(callback["body"])
            try:
                self._apply(job_id, attempt, body)
            except Unavailable:
                raise
            except (JobNotFound, InvalidToken, InvalidCallback) as error:
                _log.warning("dropped the spooled callback of job %s: %s", job_id, error)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - one unreadable file, or broken provider, must not stop the callbacks behind it
            _log.exception("could not apply the spooled callback %s; leaving it in place", name)
            self._unreadable.add(name)
            return False
        self._spool.delete(name)
        return True

    @contextmanager
    def _turn(self) -> Iterator[tuple[str, ...]]:
        """The names of the files, while no other process replays them; none otherwise."""
        names = self._spool.names()
        if not names:
            yield ()
            return
        with (self._spool.folder / ".replaying").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                names = ()
            yield names
