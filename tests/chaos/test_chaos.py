"""A short run of chaos with one seed; `make chaos` runs longer ones."""

from __future__ import annotations

from pathlib import Path
from pprint import pformat

import pytest
from chaos.__main__ import passed
from chaos.cluster import start_cluster
from chaos.plan import TARGETS, make_plan
from chaos.verdict import judge

SEED = 7


@pytest.mark.journey
@pytest.mark.timeout(240)
def test_nothing_is_paid_twice_lost_or_stuck_whatever_dies(tmp_path: Path) -> None:
    plan = make_plan(SEED, seconds=10, jobs=50)
    with start_cluster(tmp_path, plan) as place:
        verdict = judge(place.run(plan))
    said = f"seed {SEED}, logs in {tmp_path}: {pformat(verdict)}"
    assert verdict.jobs == len(plan.enqueues), said
    assert verdict.succeeded > verdict.jobs / 2, said
    assert place.supervisor.killed >= 3, said
    assert not place.supervisor.crashed, said
    assert passed(verdict), said


def test_a_seed_always_makes_the_same_plan() -> None:
    assert make_plan(3, 60, 100) == make_plan(3, 60, 100)
    assert make_plan(3, 60, 100) != make_plan(4, 60, 100)


def test_a_plan_kills_every_two_seconds_and_brings_the_storage_back() -> None:
    plan = make_plan(5, 120, 10)
    kills = [incident for incident in plan.incidents if incident.what == "kill"]
    away, back = (
        [incident.at for incident in plan.incidents if incident.what == f"storage {word}"] for word in ("away", "back")
    )
    assert len(kills) == 59
    assert {kill.target for kill in kills} == set(TARGETS)
    assert back[0] - away[0] == pytest.approx(60)
    assert max(enqueue.at for enqueue in plan.enqueues) < 120
