"""Many simulated runs, on all processors."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from .world import World

#: jobs of one run: enough that they meet each other, and few enough to replay in seconds
JOBS = 2000


def run(seed: int, jobs: int = JOBS) -> Counter[str]:
    """Run one seed and return the counts of its jobs. Raises AssertionError, which names the seed."""
    with tempfile.TemporaryDirectory() as folder:
        return World(seed, jobs, Path(folder)).run()


def run_all(seeds: Iterable[int], jobs: int = JOBS) -> Iterator[Counter[str]]:
    """Run each seed, several at once, and yield their counts as they end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=context) as pool:
        running = [pool.submit(run, seed, jobs) for seed in seeds]
        for done in as_completed(running):
            yield done.result()


def table(counts: Counter[str], started: float) -> str:
    """The counts as text, one line each."""
    rows = "\n".join(f"{name:30} {number:>9}" for name, number in counts.items())
    return f"{rows}\n{'seconds':30} {time.monotonic() - started:>9.0f}"
