"""SIGKILL between any two lines of the submit and store paths, each by name."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from chaos.kill_points import CELLS, Cell, Told, theater

from jobs.attempt import Outcome
from jobs.embedded import Processes

#: From the death of a worker to the final status of the job that it held: generous, for a dozen cells start workers at once. That
#: dead workers are found in 15 s is measured by chaos.
FINAL_SECONDS = 45.0


@pytest.fixture(scope="module")
def outcomes(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Told | BaseException]:
    """Every cell, played once."""
    with theater(tmp_path_factory.mktemp("kill-points"), processes) as stage:
        return stage.played(CELLS)


@pytest.mark.journey
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_worker_killed_at(cell: Cell, outcomes: Mapping[str, Told | BaseException]) -> None:
    told = outcomes[cell.name]
    if isinstance(told, BaseException):
        raise told
    job, expected = told.job, cell.expected
    said = f"{[(event.what, event.times) for event in job.timeline]}\n{told.log}"

    assert (job.status, job.error.code if job.error else "") == (expected.status, expected.code), said
    # Paid once at most, sent once at most: under the vendor's own key it may be sent again, and is one submission for it.
    assert told.charged == expected.charges, said
    assert told.submitted <= 1, said
    assert len(job.attempts) == 1, said
    assert cell.kind.keyed or job.attempts[0].times == 1, said
    # In doubt only where nobody can know.
    assert job.has_unknown == (expected.status != "succeeded"), said
    assert (job.attempts[0].outcome is Outcome.UNKNOWN) == (expected.status != "succeeded"), said
    # Each image that was reported is stored once, byte for byte.
    if expected.status == "succeeded":
        assert [artifact.sha256 for artifact in job.artifacts] == list(told.made), said
        assert sorted(told.stored.values()) == sorted(told.made), said
        assert len(job.artifacts) == cell.kind.images, said
        assert not job.missing, said
        assert not told.spooled, said
    assert told.seconds <= FINAL_SECONDS, f"{told.seconds:.1f} s\n{said}"
