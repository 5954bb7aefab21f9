"""Simulate many jobs, or replay one seed: `python -m simulation --jobs 1000000`, with `tests` on the path."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from .runs import JOBS, run, run_all, table


def main() -> int:
    """Return 0 when all sentences hold in every run."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--jobs", type=int, default=20_000, help="jobs in all; with --seed, of this one run")
    arguments.add_argument("--first", type=int, default=1, help="the first seed")
    arguments.add_argument("--seed", type=int, help="replay only this seed")
    given = arguments.parse_args()
    started, counts = time.monotonic(), Counter[str]()
    try:
        if given.seed is not None:
            counts = run(given.seed, given.jobs)
        else:
            for number, one in enumerate(
                run_all(range(given.first, given.first + max(1, given.jobs // JOBS))), start=1
            ):
                counts += one
                print(f"{number} runs, {counts['jobs']} jobs", file=sys.stderr, flush=True)
    except AssertionError as error:
        print(error)
        return 1
    print(table(counts, started))
    return 0


if __name__ == "__main__":
    sys.exit(main())
