"""20,000 jobs through the real transitions, worker and repository, in simulated time, while everything around them fails."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from simulation.runs import run, run_all, table

SEEDS = range(1, 11)


@pytest.mark.timeout(900)
def test_twenty_thousand_jobs_end_as_they_should() -> None:
    started, counts = time.monotonic(), Counter[str]()
    for one in run_all(SEEDS):
        counts += one
    print("\n" + table(counts, started))
    assert counts["jobs"] == 20_000
    assert counts["succeeded"] > 0.8 * counts["jobs"]
    assert counts["rescued"] > 200, "too few faults for the test to prove anything"


def test_the_same_seed_gives_the_same_run() -> None:
    assert run(7, jobs=120) == run(7, jobs=120)
