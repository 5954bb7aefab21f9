"""A worker is killed by SIGKILL at each step of a job, and another one takes over."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from chaos.kill_points import CELLS, Cell, CellResult, kill_point_run

from jobs.attempt import Outcome
from jobs.embedded import Processes


@pytest.fixture(scope="module")
def outcomes(
    processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, CellResult | BaseException]:
    """The result of each cell."""
    with kill_point_run(tmp_path_factory.mktemp("kill-points"), processes) as stage:
        return stage.run(CELLS)


@pytest.mark.journey
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_worker_killed_at(cell: Cell, outcomes: Mapping[str, CellResult | BaseException]) -> None:
    result = outcomes[cell.name]
    if isinstance(result, BaseException):
        raise result
    job, expected = result.job, cell.expected
    said = f"{[(event.what, event.times) for event in job.timeline]}\n{result.log}"

    assert (job.status, job.error.code if job.error else "") == (expected.status, expected.code), said
    # Charged at most once, sent at most once: with the provider's idempotency key it may be sent again as the same submission.
    assert result.charged == expected.charges, said
    assert result.submitted <= 1, said
    assert len(job.attempts) == 1, said
    assert cell.scenario.has_key or job.attempts[0].times == 1, said
    # Unknown only where nobody can know.
    assert job.has_unknown == (expected.status != "succeeded"), said
    assert (job.attempts[0].outcome is Outcome.UNKNOWN) == (expected.status != "succeeded"), said
    # Each image that was reported is stored once, byte for byte.
    if expected.status == "succeeded":
        assert [artifact.sha256 for artifact in job.artifacts] == list(result.made), said
        assert sorted(result.stored.values()) == sorted(result.made), said
        assert len(job.artifacts) == cell.scenario.images, said
        assert not job.missing, said
        assert not result.spooled, said
