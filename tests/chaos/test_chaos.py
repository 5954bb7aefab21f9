"""A short run of chaos with one seed; `make chaos` runs longer ones."""

from __future__ import annotations

from pathlib import Path
from pprint import pformat

import pytest
from chaos.__main__ import passed
from chaos.cluster import town
from chaos.plan import TARGETS, planned
from chaos.verdict import judged

SEED = 7


@pytest.mark.journey
@pytest.mark.timeout(240)
def test_nothing_is_paid_twice_lost_or_stuck_whatever_dies(tmp_path: Path) -> None:
    plan = planned(SEED, seconds=10, jobs=50)
    with town(tmp_path, plan) as place:
        verdict = judged(place.lived(plan))
    said = f"seed {SEED}, logs in {tmp_path}: {pformat(verdict)}"
    assert verdict.jobs == len(plan.orders), said
    assert verdict.succeeded > verdict.jobs / 2, said
    assert place.supervisor.killed >= 3, said
    assert not place.supervisor.fell, said
    assert passed(verdict), said


def test_a_seed_always_draws_the_same_plan() -> None:
    assert planned(3, 60, 100) == planned(3, 60, 100)
    assert planned(3, 60, 100) != planned(4, 60, 100)


def test_a_plan_kills_every_two_seconds_and_ends_the_storage_s_absence() -> None:
    plan = planned(5, 120, 10)
    kills = [blow for blow in plan.blows if blow.what == "kill"]
    away, back = ([blow.at for blow in plan.blows if blow.what == f"storage {word}"] for word in ("away", "back"))
    assert len(kills) == 59
    assert {kill.target for kill in kills} == set(TARGETS)
    assert back[0] - away[0] == pytest.approx(60)
    assert max(order.at for order in plan.orders) < 120
