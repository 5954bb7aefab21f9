"""The slow services of a worker: deleting what is past its retention, and reporting images that an earlier process spooled."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from jobs.darkroom import Darkroom
from jobs.errors import StorageError
from jobs.new_job import MAX_DEADLINE_SECONDS

from .runner import Runner

log = logging.getLogger(__name__)

#: how often one of all workers deletes what is past its retention, in seconds
CLEANUP_SECONDS = 3600
#: how often a worker looks for something to do here, in seconds
CHECK_SECONDS = 60.0
#: the prefix of staged inputs in the storage
_STAGED = "staged/"


@dataclass(frozen=True)
class Cleanup:
    """Deletes index entries of expired records and staged inputs that no job can need; once an hour for all workers."""

    darkroom: Darkroom
    name: str = "cleanup"
    interval_seconds: float = CHECK_SECONDS

    def run_once(self) -> bool:
        """Delete what is past its retention, if it is this worker's turn."""
        if self.darkroom.repository.take_turn(self.name, CLEANUP_SECONDS):
            self.darkroom.repository.prune()
            self.delete_inputs()
        return False

    def delete_inputs(self) -> int:
        """Delete old inputs and return their number; an input is needed for the longest deadline and the retention."""
        life = timedelta(seconds=self.darkroom.settings.retention_seconds + MAX_DEADLINE_SECONDS)
        horizon = self.darkroom.repository.now() - life
        storage = self.darkroom.storage
        old = [stored.key for stored in storage.list(_STAGED) if stored.modified_at < horizon]
        for key in old:
            try:
                storage.delete(key)
            except StorageError as error:
                log.warning("%s: %s", self.name, error)
        return len(old)


@dataclass(frozen=True)
class SpoolReport:
    """Reports images that an earlier process on this host spooled and could not write into their jobs' records."""

    runner: Runner
    loop: asyncio.AbstractEventLoop
    name: str = "spool"
    interval_seconds: float = CHECK_SECONDS

    def run_once(self) -> bool:
        """Report them on the event loop, and wait until that is done."""
        with suppress(CancelledError):  # the process is stopping
            asyncio.run_coroutine_threadsafe(self.runner.report_spooled(), self.loop).result()
        return False
