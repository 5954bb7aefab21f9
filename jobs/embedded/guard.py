"""Ends what its parent leaves behind; run by its path, for it must start in milliseconds and import nothing of ours.

It reads `+<process group>` and `-<process group>` from its standard input. When that closes, its parent is gone, in whatever
way: each group that is still on the list gets SIGTERM, the youngest first, and SIGKILL after `PATIENCE_SECONDS`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

#: how long one group may take to end
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
        _end(group)


def _end(group: int) -> None:
    if not _signal(group, signal.SIGTERM):
        return
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        if not _signal(group, 0):
            return
        time.sleep(0.05)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main()
