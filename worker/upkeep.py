"""Forgets what is past its retention: entries of the index whose records expired, and staged inputs that no job can need."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from jobs.darkroom import Darkroom
from jobs.errors import StorageError, Unavailable
from jobs.new_job import MAX_DEADLINE_SECONDS

log = logging.getLogger(__name__)

#: one worker of all cleans so often
INTERVAL_SECONDS = 3600
#: staged inputs lie below this
_STAGED = "staged/"


@dataclass(frozen=True)
class Cleaning:
    """Cleans once in an hour, whichever worker comes first. Blocks: it runs on the thread pool."""

    darkroom: Darkroom

    def clean(self) -> int:
        """Forgets what is over, when it is our turn; returns how many staged inputs that were."""
        try:
            if not self.darkroom.repository.turn("cleaning", INTERVAL_SECONDS):
                return 0
            self.darkroom.repository.prune()
            return self._forget_inputs()
        except Unavailable as error:
            log.warning("cleaning: %s", error)
            return 0

    def _forget_inputs(self) -> int:
        """An input is needed from its enqueue until its job's record expires: the longest deadline and the retention."""
        life = timedelta(seconds=self.darkroom.settings.retention_seconds + MAX_DEADLINE_SECONDS)
        horizon = self.darkroom.repository.now() - life
        old = [stored.key for stored in self.darkroom.storage.list(_STAGED) if stored.modified_at < horizon]
        for key in old:
            self._forget(key)
        return len(old)

    def _forget(self, key: str) -> None:
        try:
            self.darkroom.storage.delete(key)
        except StorageError as error:
            log.warning("cleaning: %s", error)
