"""A worker that is killed at a named step: `celery -A tests.chaos.killed_worker worker`.

CHAOS_KILL_AT names the step: `image stored`, or `claimed#2` for its second passing. The process dies by SIGKILL: no handler runs,
nothing is flushed, nobody is result.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass, field

from worker.celery import CHECKPOINT, app

_POINT = re.compile(r"(?P<name>[a-z ]+)(#(?P<passing>\d+))?")


@dataclass
class Killer:
    """Kills the process at a step: it is called with the name of each. Thread-safe enough, since it only kills once."""

    name: str
    passing: int = 1
    _seen: int = field(default=0)

    @classmethod
    def parse(cls, point: str) -> Killer:
        """Read `name` or `name#passing`. Raises ValueError for anything else."""
        found = _POINT.fullmatch(point)
        if found is None:
            raise ValueError(f"CHAOS_KILL_AT is {point!r}, not `name` or `name#2`")
        return cls(found["name"], int(found["passing"] or 1))

    def __call__(self, name: str) -> None:
        if name != self.name:
            return
        self._seen += 1
        if self._seen == self.passing:
            os.kill(os.getpid(), signal.SIGKILL)


if point := os.environ.get("CHAOS_KILL_AT"):
    app.conf[CHECKPOINT] = Killer.parse(point)
