"""The background services of a worker: each has a name, an interval and `run_once`, and runs in a thread of its own."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from jobs.errors import Unavailable

log = logging.getLogger(__name__)

#: how long a stopped service may take to end its current run, in seconds
STOP_SECONDS = 10.0


class Service(Protocol):
    """Work that a process does again and again."""

    @property
    def name(self) -> str:
        """The service's name, in the log and as its thread's name."""

    @property
    def interval_seconds(self) -> float:
        """The pause between two runs, in seconds."""

    def run_once(self) -> bool:
        """Do the work that is due now, and return whether to run again without a pause."""


class ServiceThread:
    """Runs one service until it is stopped, even if it raises."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopping = threading.Event()
        # A daemon, since a call that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=service.name, daemon=True)

    def start(self) -> None:
        """Start the thread; the first run is at once."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further run, and wait for the current one."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            again = False
            try:
                again = self._service.run_once()
            except Unavailable as error:
                log.warning("%s: %s", self._service.name, error)
            except Exception:
                log.exception("%s", self._service.name)
            self._stopping.wait(0.0 if again else self._service.interval_seconds)
