"""Ends the processes that its parent leaves behind; run by its path, so that it starts in milliseconds and imports no package.

It reads `+<process group>` and `-<process group>` from its standard input. When that closes, its parent is gone, for whatever
reason: each group that is still on the list gets SIGTERM, the youngest first, and SIGKILL after `PATIENCE_SECONDS`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

#: how long one group may take to end, in seconds
PATIENCE_SECONDS = 5.0


def main() -> None:
    """Wait for the end of the parent, then end its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, None] = {}
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups[group] = None
        else:
            groups.pop(group, None)
    for group in reversed(groups):
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        running = _signal(group, signal.SIGTERM)
        while running and time.monotonic() < give_up_at:
            time.sleep(0.05)
            running = _signal(group, 0)
        if running:
            _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group; False when nothing of it is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
