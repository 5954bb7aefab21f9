"""Simulates by the thousand, or replays one seed: `python -m simulation --jobs 1000000`, with `tests` on the path."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from .lives import JOBS, live, lives, table


def main() -> int:
    """0 when all sentences held in every life."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--jobs", type=int, default=20_000, help="jobs in all; with --seed, of this one life")
    arguments.add_argument("--first", type=int, default=1, help="the first seed")
    arguments.add_argument("--seed", type=int, help="replay this life alone")
    given = arguments.parse_args()
    started, told = time.monotonic(), Counter[str]()
    try:
        if given.seed is not None:
            told = live(given.seed, given.jobs)
        else:
            for number, life in enumerate(lives(range(given.first, given.first + max(1, given.jobs // JOBS))), start=1):
                told += life
                print(f"{number} lives, {told['jobs']} jobs", file=sys.stderr, flush=True)
    except AssertionError as error:
        print(error)
        return 1
    print(table(told, started))
    return 0


if __name__ == "__main__":
    sys.exit(main())
