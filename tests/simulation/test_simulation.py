"""20,000 jobs through the real lifecycle, worker and repository, in simulated time, while everything around them fails."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from simulation.lives import live, lives, table

SEEDS = range(1, 11)


@pytest.mark.timeout(900)
def test_twenty_thousand_jobs_end_as_they_should() -> None:
    started, told = time.monotonic(), Counter[str]()
    for life in lives(SEEDS):
        told += life
    print("\n" + table(told, started))
    assert told["jobs"] == 20_000
    assert told["succeeded"] > 0.8 * told["jobs"]
    assert told["rescued"] > 200, "too little went wrong for this to prove anything"


def test_the_same_seed_is_the_same_life() -> None:
    assert live(7, jobs=120) == live(7, jobs=120)
