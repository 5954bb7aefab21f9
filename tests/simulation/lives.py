"""Many simulated lives, on all processors."""

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

#: jobs of one life: many enough to meet each other, few enough to be replayed in seconds
JOBS = 2000


def live(seed: int, jobs: int = JOBS) -> Counter[str]:
    """One life from one seed; what became of its jobs. Raises AssertionError, which names the seed."""
    with tempfile.TemporaryDirectory() as folder:
        return World(seed, jobs, Path(folder)).run()


def lives(seeds: Iterable[int], jobs: int = JOBS) -> Iterator[Counter[str]]:
    """One life for each seed, several at once, as they end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=context) as pool:
        running = [pool.submit(live, seed, jobs) for seed in seeds]
        for ended in as_completed(running):
            yield ended.result()


def table(told: Counter[str], started: float) -> str:
    """The sum, one line each."""
    rows = "\n".join(f"{name:30} {number:>9}" for name, number in told.items())
    return f"{rows}\n{'seconds':30} {time.monotonic() - started:>9.0f}"
