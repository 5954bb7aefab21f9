"""The verdict on made-up evidence: each broken promise is found, and nothing else is called one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chaos.recovery import Death, JobRecovery
from chaos.verdict import Evidence, Verdict, judge

from jobs.attempt import Attempt, Outcome, Recovery
from jobs.images import Artifact, InSpool, Missing, PendingImage
from jobs.job import Failure, Job, Status
from jobs.report import Code

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOLDER = "a-worker"
ATTEMPT = Attempt(1, "vendor.paint", NOW, HOLDER, outcome=Outcome.SUCCEEDED)
ARTIFACT = Artifact(0, "jobs/1/1/0.png", "image/png", 10, "digest", 8, 8)
GOOD = Job(
    id="1",
    operation="vendor.paint",
    params={},
    status=Status.SUCCEEDED,
    created_at=NOW,
    updated_at=NOW,
    deadline_at=NOW + timedelta(seconds=60),
    deadline_seconds=60,
    images_expected=1,
    wake_at=None,
    attempts=(ATTEMPT,),
    artifacts=(ARTIFACT,),
)
UNKNOWN = replace(
    GOOD,
    status=Status.FAILED,
    error=Failure(Code.OUTCOME_UNKNOWN, "its outcome is unknown"),
    artifacts=(),
    attempts=(replace(ATTEMPT, outcome=Outcome.UNKNOWN),),
)
KILLED = Death("worker-1", HOLDER, NOW + timedelta(seconds=1))


def book(**changes: Any) -> dict[str, Any]:
    """One charged submission that was answered."""
    plain = {"prompt": "p", "charged": True, "refunded": False, "dropped": False, "images": ["digest"], "callbacks": []}
    return plain | changes


def verdict(job: Job | None, *books: dict[str, Any], deaths: tuple[Death, ...] = (), **changes: Any) -> Verdict:
    bucket = changes.get("bucket", {ARTIFACT.key: "digest"})
    return judge(Evidence({"p": job}, books, bucket, deaths, changes.get("recoveries", ())))


def test_a_job_whose_image_is_stored_and_was_charged_once_is_fine() -> None:
    found = verdict(GOOD, book())
    assert found.clean
    assert (found.jobs, found.final, found.succeeded, found.images, found.unknown) == (1, 1, 1, 1, 0)


def test_two_charges_are_paid_twice_unless_one_was_refunded() -> None:
    assert verdict(GOOD, book(), book()).paid_twice == ("p",)
    assert verdict(GOOD, book(), book(refunded=True)).clean
    assert verdict(GOOD, book(), book(charged=False)).clean


@pytest.mark.parametrize(
    ("job", "bucket"),
    [
        pytest.param(None, {}, id="the record is gone"),
        pytest.param(GOOD, {}, id="the object is gone"),
        pytest.param(GOOD, {ARTIFACT.key: "another"}, id="the object has other bytes"),
        pytest.param(
            replace(GOOD, artifacts=(replace(ARTIFACT, sha256="another"),)),
            {ARTIFACT.key: "another"},
            id="not the vendor's",
        ),
        pytest.param(replace(GOOD, artifacts=()), {}, id="neither stored nor missing"),
        pytest.param(
            replace(GOOD, artifacts=(), missing=(Missing(0, Code.RESULT_EXPIRED, ""),)), {}, id="its URL died over us"
        ),
        pytest.param(
            replace(GOOD, status=Status.FAILED, artifacts=(), error=Failure(Code.STORAGE_ERROR, "")),
            {},
            id="failed though its result was reported",
        ),
    ],
)
def test_an_image_is_lost_when(job: Job | None, bucket: dict[str, str]) -> None:
    assert verdict(job, book(), bucket=bucket).lost == ("p",)


def test_a_callback_that_was_accepted_must_not_be_lost() -> None:
    deadline = replace(UNKNOWN, error=Failure(Code.DEADLINE, ""))
    post = {"status": 200, "step": "completed"}
    assert verdict(deadline, book(callbacks=[post])).lost == ("p",)
    assert not verdict(deadline, book(callbacks=[post | {"status": 503}])).lost
    assert not verdict(deadline, book(callbacks=[post | {"step": "processing"}])).lost


def test_an_image_that_the_provider_withheld_is_not_lost() -> None:
    withheld = replace(GOOD, artifacts=(), missing=(Missing(0, Code.MODERATED, ""),))
    assert verdict(withheld, book(), bucket={}).clean


def test_a_job_that_is_not_final_or_not_stored_is_stuck() -> None:
    assert verdict(replace(GOOD, status=Status.RUNNING), book()).stuck == ("p",)
    assert verdict(replace(GOOD, status=Status.CANCELED, pending=(PendingImage(0, 1, InSpool("spooled")),))).stuck == (
        "p",
    )


def test_an_unknown_outcome_needs_a_reason() -> None:
    assert verdict(UNKNOWN, book()).unexplained == ("p",)
    assert verdict(UNKNOWN, book(dropped=True)).clean
    assert verdict(UNKNOWN, book(), deaths=(KILLED,)).clean
    assert verdict(UNKNOWN, book(), deaths=(replace(KILLED, holder="another"),)).unexplained == ("p",)
    assert verdict(UNKNOWN, book(), deaths=(replace(KILLED, at=NOW - timedelta(seconds=1)),)).unexplained == ("p",)


def test_a_charged_attempt_that_can_be_looked_up_must_not_stay_unknown() -> None:
    askable = replace(UNKNOWN, attempts=(replace(UNKNOWN.attempts[0], recovery=Recovery.CALLBACK),))
    assert verdict(askable, book(), deaths=(KILLED,)).unexplained == ("p",)
    assert verdict(askable, deaths=(KILLED,)).clean
    assert verdict(askable, book(dropped=True)).clean


def test_the_slowest_and_the_99th_percentile_of_the_recoveries() -> None:
    rescues = [JobRecovery(str(number), HOLDER, NOW, float(number)) for number in range(200)]
    found = verdict(GOOD, book(), recoveries=rescues)
    assert (found.recoveries, found.p99_recovery, found.slowest_recovery) == (200, 198.0, 199.0)
