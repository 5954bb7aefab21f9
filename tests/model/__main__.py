"""Explore deeper than the tests do: `python -m model 14`, with `tests` on the path. Exits 1 at the first broken sentence."""

from __future__ import annotations

import sys
import time

from .checker import Broken, Checker
from .settings import DEPTH, SETTINGS
from .world import Model


def main(depth: int) -> int:
    """Explore every world to this depth, and return 0 when all sentences hold."""
    total = 0
    for setting in SETTINGS:
        started = time.monotonic()
        checker = Checker(Model(setting))
        try:
            states = checker.explore(depth)
        except Broken as broken:
            print(f"{setting.name}: {broken}")
            return 1
        total += states
        print(f"{setting.name:30} {states:>10} states in {time.monotonic() - started:6.1f} s", flush=True)
    print(f"{'all, to depth ' + str(depth):30} {total:>10} states, every sentence holds")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else DEPTH))
