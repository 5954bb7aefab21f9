"""Callbacks that came while Redis was away: on this host's disk before they are answered, replayed in order when it is back."""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jobs import DarkroomError, RedisUnavailable, Unavailable
from jobs.storage.spool import Spool

_log = logging.getLogger("darkroom.webhooks")

#: between two looks whether something waits
REPLAY_SECONDS = 1.0
#: after Redis was found away, callbacks go straight to the disk for so long
_AWAY_SECONDS = 1.0


@dataclass
class SpooledCallbacks:
    """One host's callbacks that wait for Redis; several processes share the folder, one at a time replays it."""

    spool: Spool
    #: keeps a callback in Redis: job id, attempt, body
    receive: Callable[[str, int, bytes], None]
    _away_until: float = 0.0
    #: files that no replay of this process can do anything with
    _unreadable: set[str] = field(default_factory=set)

    @property
    def away(self) -> bool:
        """Whether Redis was found away a moment ago."""
        return time.monotonic() < self._away_until

    def keep(self, job_id: str, number: int, body: bytes) -> None:
        """Writes a callback, whose token was checked, to the disk. Raises SpoolFull or OSError."""
        self._away_until = time.monotonic() + _AWAY_SECONDS
        kept = {"job_id": job_id, "attempt": number, "body": base64.b64encode(body).decode()}
        self.spool.write(f"{time.time_ns():020d}-", json.dumps(kept).encode())
        _log.warning("callback of job %s attempt %d waits on the disk for Redis", job_id, number)

    def start(self) -> None:
        """Replays in a thread of this process from now on."""
        threading.Thread(target=self._go_on, name="replay", daemon=True).start()

    def _go_on(self) -> None:
        while True:
            time.sleep(REPLAY_SECONDS)
            try:
                self.replay()
            except Exception:  # noqa: BLE001 - a file that cannot be read must not end the replay of the others
                _log.exception("replay of callbacks")

    def replay(self) -> int:
        """Keeps what waits, oldest first, until Redis is away again; returns how many. Somebody else's turn: none.

        One that cannot be kept, for whatever other reason, stays and does not stop those behind it.
        """
        with self._turn() as ours:
            done = 0
            for name in self.spool.names() if ours else ():
                try:
                    done += self._replayed(name)
                except RedisUnavailable:
                    break
                except Unavailable as error:  # its record was written by a later version, say
                    _log.warning("a callback waits on: %s", error)
            return done

    def _replayed(self, name: str) -> bool:
        if name in self._unreadable:
            return False
        try:
            kept = json.loads(self.spool.read(name))
            self._received(kept["job_id"], kept["attempt"], base64.b64decode(kept["body"]))
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - as long as it stays, the others must not wait for it
            _log.exception("callback %s from the disk; it stays there", name)
            self._unreadable.add(name)
            return False
        self.spool.delete(name)
        return True

    def _received(self, job_id: str, number: int, body: bytes) -> None:
        try:
            self.receive(job_id, number, body)
        except Unavailable:
            raise
        except DarkroomError as error:
            _log.warning("callback of job %s from the disk: %s", job_id, error)

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        if not self.spool.names():
            yield False
            return
        with (self.spool.folder / ".replaying").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
