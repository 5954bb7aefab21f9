"""The transitions of a job: every status with every event, then what each leaves on the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from jobs import schedule, transitions
from jobs.attempt import MAX_BACKOFF_SECONDS, Outcome, Recovery, backoff_seconds, find_attempt, poll_seconds
from jobs.errors import ChargePossible, NotPossible
from jobs.images import Artifact, AtUrl, InSpool, Missing, PendingImage, Postponed, Spooled
from jobs.job import ATTEMPTS, Failure, Job, OnUnknown, Status
from jobs.report import Charged, Code, Cost, Failed, Image, Running, Source, Succeeded, Unit
from jobs.transitions import INPUT_PAUSE_SECONDS, TIMELINE_LENGTH

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = T0 + timedelta(seconds=30)
LATER = T0 + timedelta(seconds=601)
US, STRANGER = "worker-a", "worker-b"

IMAGES = (Image(0, url="https://provider/0"), Image(1, url="https://provider/1"))
SUCCESS = Succeeded(IMAGES, external_id="ext")
BUSY = Failed(Code.RATE_LIMITED, "slow down", retryable=True, charged=Charged.NO)
MODERATED = Failed(Code.MODERATED, "no", charged=Charged.NO)
OVERLOADED = Failed(Code.PROVIDER_ERROR, "overloaded", retryable=True, charged=Charged.NO, not_now=True)
LOST = Failed(Code.PROVIDER_ERROR, "answered 502", retryable=True, charged=Charged.UNKNOWN)
REFUSED = Failed(Code.PROVIDER_ERROR, "connection refused", retryable=True, charged=Charged.NO, not_sent=True)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def artifact(index: int, attempt: int = 1) -> Artifact:
    return Artifact(index, f"key-{index}", "image/png", 10, "ab" * 32, 4, 4, attempt)


def missing(index: int, code: Code = Code.RESULT_EXPIRED) -> Missing:
    return Missing(index, code, "its URL died")


# --- jobs -------------------------------------------------------------------------------------------------------------


def a_job(**changes: object) -> Job:
    plain = Job(
        id="a" * 32,
        operation="provider.paint",
        params={},
        status=Status.QUEUED,
        created_at=T0,
        updated_at=T0,
        deadline_at=at(600),
        deadline_seconds=600,
        images_expected=2,
        wake_at=T0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def claimed(job: Job, now: datetime = NOW) -> Job:
    return transitions.claimed(job, US, now)


def submitting(recovery: Recovery = Recovery.NONE, *, polled: bool = False, **changes: object) -> Job:
    return transitions.submitting(claimed(a_job(**changes)), US, NOW, recovery=recovery, polled=polled)


def running(recovery: Recovery = Recovery.NONE, *, polled: bool = True, **changes: object) -> Job:
    return transitions.reported(submitting(recovery, polled=polled, **changes), 1, Running("ext"), NOW)


def answered(job: Job, failure: Failed) -> Job:
    """The job after the answer to the submission of its current attempt."""
    return transitions.reported(job, job.attempts[-1].number, failure, NOW, source=Source.ANSWER)


def planned(**changes: object) -> Job:
    """A retry is planned: attempt 1 failed and cost nothing."""
    return replace(transitions.reported(submitting(**changes), 1, BUSY, NOW), wake_at=NOW)


def second(**changes: object) -> Job:
    """Attempt 2 is being sent after attempt 1 failed."""
    return transitions.submitting(claimed(planned(**changes)), US, NOW, polled=True)


def resending(**changes: object) -> Job:
    """Attempt 1 waits to be sent again with the provider's idempotency key."""
    return replace(transitions.outcome_lost(submitting(Recovery.KEY, **changes), US, NOW), wake_at=NOW)


def resubmitting() -> Job:
    """A new attempt is planned, which may be charged again, after one with an unknown outcome."""
    return replace(transitions.outcome_lost(submitting(on_unknown=OnUnknown.CHARGE_AGAIN), US, NOW), wake_at=NOW)


def storing(**changes: object) -> Job:
    return transitions.reported(second(**changes), 2, SUCCESS, NOW)


def ended(job: Job, code: Code) -> Job:
    """The job after all its pending images were given up."""
    return transitions.stored(
        job, job.pending[0].attempt, {image.index: missing(image.index, code) for image in job.pending}, NOW
    )


GIVEN: dict[str, Callable[[], Job]] = {
    "queued": a_job,
    "claimed": lambda: claimed(a_job()),
    "planned": planned,
    "resending": resending,
    "resubmitting": resubmitting,
    "submitting": second,
    "running": lambda: transitions.reported(second(), 2, Running("ext"), NOW),
    "storing": storing,
    "storing, held": lambda: claimed(storing()),
    "succeeded": lambda: transitions.stored(storing(), 2, {0: artifact(0), 1: artifact(1)}, NOW),
    "failed, free": lambda: transitions.reported(second(), 2, MODERATED, NOW),
    "failed, paid?": lambda: transitions.reported(second(), 2, LOST, NOW),
    "failed, deadline": lambda: replace(transitions.expired(second(), LATER), deadline_at=at(600)),
    "failed, unknown": lambda: transitions.outcome_lost(second(), US, NOW),
    "failed, expired": lambda: ended(storing(), Code.RESULT_EXPIRED),
    "failed, no image": lambda: ended(storing(), Code.RESULT_REJECTED),
    "canceled": lambda: transitions.canceled(second(), NOW),
    "canceled, unsent": lambda: transitions.canceled(a_job(), NOW),
}

# --- events -----------------------------------------------------------------------------------------------------------


def current(job: Job) -> int:
    return max(len(job.attempts), 1)


EVENTS: dict[str, Callable[[Job], Job]] = {
    "claim": lambda job: transitions.claimed(job, US, NOW),
    "release": lambda job: transitions.released(job, US, NOW),
    "send": lambda job: transitions.submitting(job, US, NOW),
    "outcome lost": lambda job: transitions.outcome_lost(job, US, NOW),
    "Running": lambda job: transitions.reported(job, current(job), Running("ext"), NOW),
    "Success": lambda job: transitions.reported(job, current(job), SUCCESS, NOW),
    "Busy": lambda job: transitions.reported(job, current(job), BUSY, NOW),
    "Moderated": lambda job: transitions.reported(job, current(job), MODERATED, NOW),
    "Lost": lambda job: transitions.reported(job, current(job), LOST, NOW),
    "busy answer": lambda job: transitions.reported(job, current(job), BUSY, NOW, source=Source.ANSWER),
    "refused": lambda job: transitions.reported(job, current(job), OVERLOADED, NOW, source=Source.ANSWER),
    "old Success": lambda job: transitions.reported(job, 1, SUCCESS, NOW),
    "old Running": lambda job: transitions.reported(job, 1, Running(), NOW),
    "forged": lambda job: transitions.reported(job, len(job.attempts) + 1, SUCCESS, NOW),
    "stored": lambda job: transitions.stored(job, current(job), {0: artifact(0), 1: artifact(1)}, NOW),
    "deadline": lambda job: transitions.expired(job, LATER),
    "cancel": lambda job: transitions.canceled(job, NOW),
    "retry": lambda job: transitions.retried(job, NOW),
    "retry, paid": lambda job: transitions.retried(job, NOW, may_charge_again=True),
}


def seen(given: Job, event: Callable[[Job], Job]) -> str:
    """One word for the change of the job."""
    try:
        after = event(given)
    except ChargePossible:
        return "$"
    except NotPossible:
        return "!"
    if after is given:
        return "="
    if after.status is given.status:
        return "held" if after.holder and not given.holder else "free" if given.holder and not after.holder else "+"
    return after.status.value


#: a status: the new one · `+` the same status, with a change of timeline or ledger · `=` no change ·
#: held, free: a worker claimed or released it · `!` NotPossible · `$` ChargePossible
TABLE = """
given            | claim | release | send       | outcome lost | Running | Success | Busy   | Moderated | Lost   | busy answer | refused | old Success | old Running | forged | stored    | deadline | cancel   | retry   | retry, paid
queued           | held  | =       | =          | =            | =       | =       | =      | =         | =      | =           | =       | =           | =           | =      | =         | failed   | canceled | !       | !
claimed          | =     | free    | submitting | free         | =       | =       | =      | =         | =      | =           | =       | =           | =           | =      | =         | failed   | canceled | !       | !
planned          | held  | =       | =          | =            | =       | storing | +      | +         | +      | +           | +       | storing     | =           | =      | =         | failed   | canceled | !       | !
resending        | held  | =       | =          | =            | running | storing | +      | failed    | failed | +           | +       | storing     | running     | =      | =         | failed   | canceled | !       | !
resubmitting     | held  | =       | =          | =            | running | storing | +      | +         | +      | +           | +       | storing     | running     | =      | =         | failed   | canceled | !       | !
submitting       | =     | =       | =          | failed       | running | storing | queued | failed    | failed | queued      | queued  | storing     | =           | =      | =         | failed   | canceled | !       | !
running          | =     | =       | =          | =            | =       | storing | queued | failed    | failed | +           | +       | storing     | =           | =      | =         | failed   | canceled | !       | !
storing          | held  | =       | =          | =            | =       | +       | +      | +         | +      | +           | +       | +           | =           | =      | succeeded | =        | =        | !       | !
storing, held    | =     | free    | =          | free         | =       | +       | +      | +         | +      | +           | +       | +           | =           | =      | succeeded | =        | =        | !       | !
succeeded        | =     | =       | =          | =            | =       | +       | +      | +         | +      | +           | +       | +           | =           | =      | =         | =        | =        | !       | !
failed, free     | =     | =       | =          | =            | =       | +       | +      | +         | +      | +           | +       | +           | =           | =      | =         | =        | =        | queued  | queued
failed, paid?    | =     | =       | =          | =            | =       | storing | +      | +         | +      | +           | +       | +           | =           | =      | =         | =        | =        | $       | queued
failed, deadline | =     | =       | =          | =            | +       | storing | +      | +         | +      | +           | +       | storing     | =           | =      | =         | =        | =        | $       | queued
failed, unknown  | =     | =       | =          | =            | +       | storing | +      | +         | +      | +           | +       | storing     | =           | =      | =         | =        | =        | $       | queued
failed, expired  | =     | =       | =          | =            | =       | +       | +      | +         | +      | +           | +       | +           | =           | =      | =         | =        | =        | storing | storing
failed, no image | =     | =       | =          | =            | =       | +       | +      | +         | +      | +           | +       | +           | =           | =      | =         | =        | =        | $       | queued
canceled         | =     | =       | =          | =            | +       | +       | +      | +         | +      | +           | +       | +           | =           | =      | =         | =        | =        | $       | queued
canceled, unsent | =     | =       | =          | =            | =       | =       | =      | =         | =      | =           | =       | =           | =           | =      | =         | =        | =        | queued  | queued
"""


def cells() -> list[tuple[str, str, str]]:
    head, *rows = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]
    return [(row[0], event, expected) for row in rows for event, expected in zip(head[1:], row[1:], strict=True)]


def test_the_table_names_every_status_and_every_event() -> None:
    assert {make().status for make in GIVEN.values()} == set(Status)
    assert {event for _, event, _ in cells()} == set(EVENTS)
    assert {given for given, _, _ in cells()} == set(GIVEN)


@pytest.mark.parametrize(("given", "event", "becomes"), cells())
def test_each_event_changes_each_status_as_the_table_says(given: str, event: str, becomes: str) -> None:
    assert seen(GIVEN[given](), EVENTS[event]) == becomes


#: reports, which can be repeated
REPORTS = ("Success", "Busy", "Moderated", "Lost", "old Success", "old Running", "forged")


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("event", REPORTS)
def test_a_repeated_report_counts_once(given: str, event: str) -> None:
    once = EVENTS[event](GIVEN[given]())
    again = EVENTS[event](once)

    assert (again.status, again.wake_at, again.pending) == (once.status, once.wake_at, once.pending)
    assert (again.attempts, again.artifacts, again.missing, again.error) == (
        once.attempts,
        once.artifacts,
        once.missing,
        once.error,
    )


@pytest.mark.parametrize("given", ["claimed", "submitting", "storing, held"])
def test_only_the_holder_can_release_a_job(given: str) -> None:
    job = GIVEN[given]()
    assert transitions.released(job, STRANGER, NOW) is job
    assert transitions.outcome_lost(job, STRANGER, NOW) is job


# --- claims -----------------------------------------------------------------------------------------------------------


def test_a_claim_sets_the_holder_and_keeps_the_status() -> None:
    job = claimed(a_job())
    assert (job.status, job.holder, job.attempts) == (Status.QUEUED, US, ())


def test_only_the_first_of_two_claims_wins() -> None:
    job = claimed(a_job())
    assert transitions.claimed(job, STRANGER, NOW) is job


def test_a_job_is_not_claimed_before_its_time() -> None:
    job = a_job(wake_at=at(40))
    assert transitions.claimed(job, US, at(39)) is job
    assert transitions.claimed(job, US, at(40)).holder == US


def test_a_claim_after_the_deadline_ends_the_job() -> None:
    assert transitions.claimed(a_job(), US, at(600)).error == Failure(Code.DEADLINE, "no result within 600 s")


def test_a_claimed_job_leaves_its_lane_and_a_released_job_returns() -> None:
    job = claimed(a_job())
    assert schedule.lane_at(job) is None
    assert schedule.lane_at(transitions.released(job, US, at(40))) == at(40)


def test_only_the_holder_submits_a_job() -> None:
    job = claimed(a_job())
    assert transitions.submitting(job, STRANGER, NOW) is job


def test_nothing_is_submitted_after_the_deadline() -> None:
    job = transitions.submitting(claimed(a_job()), US, at(600))
    assert (job.status, job.attempts) == (Status.FAILED, ())


def test_unavailable_inputs_are_retried_until_the_deadline() -> None:
    job = transitions.input_failed(claimed(a_job()), US, "image_file: its host is away", NOW, lasting=False)
    assert (job.status, job.holder, job.wake_at) == (Status.QUEUED, None, NOW + timedelta(seconds=INPUT_PAUSE_SECONDS))
    assert job.attempts == ()


def test_invalid_inputs_fail_the_job_before_anything_is_sent() -> None:
    job = transitions.input_failed(claimed(a_job()), US, "image_file: no image", NOW, lasting=True)
    assert job.error == Failure(Code.INVALID_REQUEST, "image_file: no image")
    assert job.attempts == ()


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_the_attempt_is_on_the_ledger_before_it_is_sent() -> None:
    cost = Cost(4, Unit.CREDIT)
    job = transitions.submitting(claimed(a_job()), US, NOW, expected_cost=cost)
    (attempt,) = job.attempts
    assert (attempt.number, attempt.operation, attempt.provider) == (1, "provider.paint", "provider")
    assert (attempt.started_at, attempt.holder) == (NOW, US)
    assert (attempt.outcome, attempt.charged, attempt.expected_cost) == (Outcome.SENDING, Charged.UNKNOWN, cost)


def test_a_success_costs_what_the_answer_says_or_what_was_expected() -> None:
    sent = transitions.submitting(claimed(a_job()), US, NOW, expected_cost=Cost(4, Unit.CREDIT))
    assert transitions.reported(sent, 1, SUCCESS, NOW).attempts[0].cost == Cost(4, Unit.CREDIT)
    told = transitions.reported(sent, 1, Succeeded(IMAGES, cost=Cost(2, Unit.USD)), NOW).attempts[0]
    assert (told.cost, told.charged, told.ended_at, told.outcome) == (
        Cost(2, Unit.USD),
        Charged.YES,
        NOW,
        Outcome.SUCCEEDED,
    )


def test_a_refusal_is_on_the_ledger_with_its_reason() -> None:
    (attempt,) = transitions.reported(submitting(), 1, MODERATED, NOW).attempts
    assert (attempt.outcome, attempt.code, attempt.message, attempt.charged, attempt.ended_at) == (
        Outcome.REJECTED,
        Code.MODERATED,
        "no",
        Charged.NO,
        NOW,
    )


def test_an_attempt_that_was_not_sent_is_not_a_refusal() -> None:
    assert transitions.reported(submitting(), 1, REFUSED, NOW).attempts[0].outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    "leave",
    [lambda job: transitions.canceled(job, NOW), lambda job: transitions.expired(job, LATER)],
    ids=["cancel", "deadline"],
)
def test_a_job_that_ends_while_an_attempt_is_sent_leaves_it_unknown(leave: Callable[[Job], Job]) -> None:
    job = leave(submitting())
    assert job.has_unknown
    assert (job.attempts[0].outcome, job.attempts[0].charged) == (Outcome.UNKNOWN, Charged.UNKNOWN)


def test_a_late_answer_settles_an_unknown_outcome() -> None:
    job = transitions.reported(transitions.canceled(submitting(), NOW), 1, MODERATED, NOW)
    assert not job.has_unknown
    assert (job.status, job.attempts[0].charged) == (Status.CANCELED, Charged.NO)


def test_an_earlier_success_leaves_the_attempt_being_sent_unknown() -> None:
    job = transitions.reported(second(), 1, SUCCESS, NOW)
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.SUCCEEDED, Outcome.UNKNOWN]


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "policy", "becomes"),
    [
        (BUSY, OnUnknown.FAIL, Status.QUEUED),
        (REFUSED, OnUnknown.FAIL, Status.QUEUED),
        (MODERATED, OnUnknown.FAIL, Status.FAILED),
        (MODERATED, OnUnknown.CHARGE_AGAIN, Status.FAILED),
        (LOST, OnUnknown.FAIL, Status.FAILED),
        (LOST, OnUnknown.CHARGE_AGAIN, Status.QUEUED),
        (replace(LOST, charged=Charged.YES), OnUnknown.FAIL, Status.FAILED),
    ],
)
@pytest.mark.parametrize("given", [submitting, running])
def test_only_free_failures_are_retried_unless_the_job_allows_another_charge(
    given: Callable[..., Job], failure: Failed, policy: OnUnknown, becomes: Status
) -> None:
    assert transitions.reported(given(on_unknown=policy), 1, failure, NOW).status is becomes


def test_a_job_fails_after_its_attempts() -> None:
    job = a_job()
    for number in range(1, ATTEMPTS + 1):
        assert job.status is Status.QUEUED
        job = transitions.reported(
            transitions.submitting(transitions.claimed(replace(job, wake_at=NOW), US, NOW), US, NOW), number, BUSY, NOW
        )
    assert (job.status, job.error, len(job.attempts)) == (
        Status.FAILED,
        Failure(Code.RATE_LIMITED, "slow down"),
        ATTEMPTS,
    )


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0)])
def test_the_back_off_doubles_and_is_spread_over_jobs(failures: int, seconds: float) -> None:
    waits = {backoff_seconds(failures, f"{job:032x}") for job in range(200)}
    assert all(seconds * 0.8 <= wait <= seconds * 1.2 for wait in waits)
    assert len(waits) > 100


@pytest.mark.parametrize("failures", [0, 30, 1025, 10**9])
def test_the_back_off_never_exceeds_the_cap(failures: int) -> None:
    assert 0.8 <= backoff_seconds(failures, "a-job") <= MAX_BACKOFF_SECONDS


def test_the_same_failure_of_the_same_job_waits_as_long() -> None:
    first, again = (transitions.reported(submitting(), 1, BUSY, NOW) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(("asked", "seconds"), [(30, 30.0), (60, 60.0), (400, 400.0), (3600, 570.0), (1e30, 570.0)])
def test_retry_after_is_obeyed_until_the_deadline(asked: float, seconds: float) -> None:
    job = transitions.reported(submitting(), 1, replace(BUSY, retry_after_seconds=asked), NOW)
    assert job.wake_at == NOW + timedelta(seconds=seconds)
    assert schedule.lane_at(job) == job.wake_at


def test_retry_after_does_not_shorten_the_back_off() -> None:
    job = transitions.reported(submitting(), 1, replace(BUSY, retry_after_seconds=0), NOW)
    assert job.wake_at is not None
    assert job.wake_at >= NOW + timedelta(seconds=0.8)


@pytest.mark.parametrize(("left", "longest"), [(600, 60), (40, 20), (6, 3), (1.5, 1), (0.5, 0.5)])
def test_a_refused_job_is_tried_again_before_its_deadline(left: float, longest: float) -> None:
    job = refused(20, deadline_at=NOW + timedelta(seconds=left))
    assert job.wake_at is not None
    assert job.wake_at <= NOW + timedelta(seconds=longest)


# --- refused for now --------------------------------------------------------------------------------------------------


def refused(times: int, failure: Failed = OVERLOADED, recovery: Recovery = Recovery.NONE, **changes: object) -> Job:
    """A job that was refused for now so many times, and waits for its next attempt."""
    job = a_job(**changes)
    for _ in range(times):
        job = transitions.submitting(claimed(replace(job, wake_at=NOW)), US, NOW, recovery=recovery)
        job = answered(job, failure)
    return job


@pytest.mark.parametrize("failure", [OVERLOADED, REFUSED])
def test_a_refusal_for_now_is_no_attempt_and_one_line_of_the_ledger(failure: Failed) -> None:
    job = refused(50, failure)
    (line,) = job.attempts
    assert (job.status, job.error, transitions.next_number(job)) == (Status.QUEUED, None, 51)
    assert (line.first_number, line.number, line.times, line.charged) == (1, 50, 50, Charged.NO)
    assert (line.code, line.message) == (failure.code, failure.message)
    assert job.wake_at is not None
    assert NOW + timedelta(seconds=48) <= job.wake_at <= NOW + timedelta(seconds=60)


def test_the_attempts_of_a_job_are_left_after_refusals_for_now() -> None:
    job = refused(9)
    for count in range(1, ATTEMPTS + 1):
        assert job.status is Status.QUEUED
        job = answered(transitions.submitting(claimed(replace(job, wake_at=NOW)), US, NOW), BUSY)
        assert [attempt.times for attempt in job.attempts] == [9] + [1] * count
    assert (job.status, job.attempts[-1].number) == (Status.FAILED, 9 + ATTEMPTS)


def test_a_refusal_for_now_that_may_have_been_charged_is_a_failure() -> None:
    job = answered(submitting(), replace(OVERLOADED, charged=Charged.UNKNOWN))
    assert (job.status, job.attempts[0].charged) == (Status.FAILED, Charged.UNKNOWN)


def test_the_deadline_of_a_refused_job_says_what_the_provider_answered() -> None:
    job = transitions.expired(refused(7), LATER)
    assert job.error == Failure(
        Code.DEADLINE,
        "no result within 600 s; the provider refused it 7 times, most recently with provider_error: overloaded",
    )


def test_refusals_for_now_leave_one_line_on_the_timeline_and_no_webhooks() -> None:
    job = refused(5, webhook_url="https://endpoint", webhook_events=tuple(Status))
    assert [(event.what, event.times) for event in job.timeline] == [("refused for now: provider_error", 5)]
    assert [item.event for item in job.deliveries] == ["submitting"]


@pytest.mark.parametrize("number", [1, 3, 6])
def test_the_late_success_of_a_refusal_that_lied_finds_its_line(number: int) -> None:
    job = transitions.reported(refused(6), number, SUCCESS, NOW)
    assert (job.status, {image.attempt for image in job.pending}) == (Status.STORING, {number})
    assert [found for line in job.attempts for found in line.numbers] == [1, 2, 3, 4, 5, 6]
    assert sum(line.times for line in job.attempts) == 6
    for line in job.attempts:
        assert (line.charged is Charged.YES) == (line.number == number)
        assert (line.outcome is Outcome.SUCCEEDED) == (line.number == number)


@pytest.mark.parametrize("recovery", [Recovery.NONE, Recovery.KEY])
def test_the_late_success_of_a_refusal_that_lied_is_stored_although_the_job_failed(recovery: Recovery) -> None:
    job = replace(refused(2, recovery=recovery), wake_at=NOW)
    failed = answered(transitions.submitting(claimed(job), US, NOW, recovery=recovery), MODERATED)
    assert (failed.status, failed.attempts[-1].charged) == (Status.FAILED, Charged.NO)
    assert transitions.reported(failed, 1, SUCCESS, NOW).status is Status.STORING


def test_a_refused_attempt_that_turns_out_to_run_is_not_sent_again() -> None:
    job = transitions.reported(refused(3), 3, Running("ext"), NOW)
    assert (job.status, job.attempts[-1].charged) == (Status.RUNNING, Charged.UNKNOWN)
    assert [(line.number, line.outcome) for line in job.attempts] == [(2, Outcome.REJECTED), (3, Outcome.ACCEPTED)]


def test_an_earlier_refused_attempt_that_turns_out_to_run_is_a_doubt_on_the_ledger() -> None:
    sent = transitions.submitting(claimed(replace(refused(3), wake_at=NOW)), US, NOW)
    job = transitions.reported(sent, 2, Running("ext"), NOW)
    assert (job.status, job.holder) == (Status.SUBMITTING, US)
    assert [(line.number, line.outcome) for line in job.attempts] == [
        (1, Outcome.REJECTED),
        (2, Outcome.ACCEPTED),
        (3, Outcome.REJECTED),
        (4, Outcome.SENDING),
    ]


@pytest.mark.parametrize("failure", [BUSY, OVERLOADED])
def test_a_job_does_not_send_another_attempt_while_an_earlier_one_runs_after_all(failure: Failed) -> None:
    sent = transitions.submitting(claimed(replace(refused(3), wake_at=NOW)), US, NOW)
    job = answered(transitions.reported(sent, 2, Running("ext"), NOW), failure)
    assert (job.status, job.holder, job.attempt and job.attempt.number) == (Status.RUNNING, None, 2)
    assert transitions.next_number(job) == 5


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_queued_job_waits_for_a_refused_attempt_that_turns_out_to_run(number: int) -> None:
    job = transitions.reported(refused(3), number, Running("ext"), NOW)
    assert (job.status, job.attempt and job.attempt.number) == (Status.RUNNING, number)
    assert sorted(found for line in job.attempts for found in line.numbers) == [1, 2, 3]
    failed = transitions.reported(job, number, BUSY, NOW, source=Source.POLL)
    assert (failed.status, transitions.next_number(failed)) == (Status.QUEUED, 4)
    assert transitions.reported(job, number, SUCCESS, NOW).status is Status.STORING


def test_a_queued_job_waits_for_an_unknown_attempt_that_turns_out_to_run() -> None:
    lost = transitions.outcome_lost(submitting(on_unknown=OnUnknown.CHARGE_AGAIN), US, NOW)
    assert (lost.status, lost.attempts[0].outcome) == (Status.QUEUED, Outcome.UNKNOWN)
    assert transitions.reported(lost, 1, Running("ext"), NOW).status is Status.RUNNING


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("charged", [Charged.YES, Charged.UNKNOWN])
def test_a_refused_attempt_that_failed_at_a_cost_is_not_paid_for_twice(number: int, charged: Charged) -> None:
    job = transitions.reported(refused(3), number, replace(LOST, charged=charged), NOW)
    assert (job.status, find_attempt(job.attempts, number).charged) == (Status.FAILED, charged)  # type: ignore[union-attr]
    with pytest.raises(ChargePossible):
        transitions.retried(job, NOW)


def test_the_refusals_of_a_repeated_attempt_send_one_webhook_and_keep_their_reason() -> None:
    options = {"webhook_url": "https://endpoint", "webhook_events": (Status.SUBMITTING,)}
    job = transitions.submitting(claimed(a_job(**options)), US, NOW, recovery=Recovery.KEY)
    job = transitions.outcome_lost(job, US, NOW)
    for _ in range(5):
        job = transitions.submitting(claimed(replace(job, wake_at=NOW)), US, NOW, recovery=Recovery.KEY)
        job = answered(job, OVERLOADED)
    assert len(job.deliveries) == 2
    job = transitions.submitting(claimed(replace(job, wake_at=NOW)), US, NOW, recovery=Recovery.KEY)
    expired = transitions.expired(transitions.outcome_lost(job, US, NOW), LATER)
    assert expired.error is not None
    assert expired.error.message.endswith("refused it 5 times, most recently with provider_error: overloaded")


def test_refusals_for_different_reasons_are_one_line_of_the_timeline() -> None:
    job = a_job()
    for failure in (OVERLOADED, replace(OVERLOADED, code=Code.RATE_LIMITED)) * 3:
        job = answered(transitions.submitting(claimed(replace(job, wake_at=NOW)), US, NOW), failure)
    assert [(event.what, event.times) for event in job.timeline] == [("refused for now: rate_limited", 6)]


@pytest.mark.parametrize("failure", [BUSY, OVERLOADED, LOST, MODERATED, REFUSED])
@pytest.mark.parametrize("recovery", Recovery)
def test_once_an_attempt_is_accepted_a_failing_answer_changes_nothing(failure: Failed, recovery: Recovery) -> None:
    accepted = running(recovery)
    job = answered(accepted, failure)
    assert (job.status, job.attempts, job.wake_at) == (Status.RUNNING, accepted.attempts, accepted.wake_at)
    assert job.timeline[-1].what == f"1 {failure.code} after it was accepted"


def test_after_an_attempt_is_accepted_a_failing_callback_or_poll_is_believed() -> None:
    for source in (Source.CALLBACK, Source.POLL):
        assert transitions.reported(running(), 1, MODERATED, NOW, source=source).status is Status.FAILED


# --- unknown outcomes -------------------------------------------------------------------------------------------------


def test_with_a_key_the_same_attempt_is_sent_again() -> None:
    job = resending()
    assert (job.status, job.has_unknown, transitions.next_number(job)) == (Status.QUEUED, True, 1)
    again = transitions.submitting(claimed(job), US, at(40), recovery=Recovery.KEY)
    assert [(attempt.number, attempt.times, attempt.started_at) for attempt in again.attempts] == [(1, 2, NOW)]
    assert transitions.attempt_key(again, 1) == transitions.attempt_key(job, transitions.next_number(job))


def test_the_same_key_is_sent_a_limited_number_of_times() -> None:
    job = a_job()
    for _ in range(ATTEMPTS):
        job = transitions.outcome_lost(
            transitions.submitting(
                transitions.claimed(replace(job, wake_at=NOW), US, NOW), US, NOW, recovery=Recovery.KEY
            ),
            US,
            NOW,
        )
    assert (job.status, job.attempts[0].times, len(job.attempts)) == (Status.FAILED, ATTEMPTS, 1)
    assert job.error is not None
    assert job.error.code is Code.OUTCOME_UNKNOWN


def test_after_the_last_repeat_charge_again_sends_a_new_attempt() -> None:
    job = a_job(on_unknown=OnUnknown.CHARGE_AGAIN)
    for _ in range(ATTEMPTS + 1):
        job = transitions.outcome_lost(
            transitions.submitting(
                transitions.claimed(replace(job, wake_at=NOW), US, NOW), US, NOW, recovery=Recovery.KEY
            ),
            US,
            NOW,
        )
    assert [(attempt.number, attempt.times) for attempt in job.attempts] == [(1, ATTEMPTS), (2, 1)]


def test_an_unknown_attempt_that_turns_out_to_run_is_not_sent_again() -> None:
    """With a new key it would be charged twice."""
    job = transitions.reported(resending(), 1, Running("ext"), NOW)
    assert (job.status, job.attempts[0].outcome, schedule.lane_at(job)) == (Status.RUNNING, Outcome.ACCEPTED, None)


def test_a_prepared_repeat_is_not_sent_once_the_attempt_runs() -> None:
    job = transitions.reported(claimed(resending()), 1, Running("ext"), NOW)
    assert transitions.submitting(job, US, NOW) is job


@pytest.mark.parametrize(
    ("failure", "becomes"), [(BUSY, Status.QUEUED), (MODERATED, Status.FAILED), (LOST, Status.FAILED)]
)
def test_a_failure_reported_before_the_repeat_ends_the_attempt(failure: Failed, becomes: Status) -> None:
    job = transitions.reported(resending(), 1, failure, NOW)
    assert (job.status, job.attempts[0].outcome, transitions.next_number(job)) == (becomes, Outcome.REJECTED, 2)


def resent(**changes: object) -> Job:
    """Attempt 1 is being sent again with the provider's idempotency key."""
    return transitions.submitting(claimed(resending(**changes)), US, NOW, recovery=Recovery.KEY)


@pytest.mark.parametrize("failure", [REFUSED, BUSY, OVERLOADED, LOST])
def test_a_refused_repeat_says_nothing_about_the_first_send(failure: Failed) -> None:
    job = answered(resent(), failure)
    assert (job.status, job.has_unknown, transitions.next_number(job)) == (Status.QUEUED, True, 1)
    assert (job.attempts[0].charged, job.attempts[0].code) == (Charged.UNKNOWN, failure.code)


@pytest.mark.parametrize("failure", [REFUSED, BUSY, OVERLOADED, LOST])
def test_with_a_key_each_retry_after_an_answer_is_the_same_attempt(failure: Failed) -> None:
    job = answered(submitting(Recovery.KEY), failure)
    assert (job.status, transitions.is_resend(job), transitions.next_number(job)) == (Status.QUEUED, True, 1)


def test_with_a_key_an_attempt_that_was_only_refused_for_now_is_free() -> None:
    job = refused(30, recovery=Recovery.KEY)
    assert [(line.number, line.times, line.charged) for line in job.attempts] == [(1, 30, Charged.NO)]
    assert transitions.retried(transitions.expired(job, LATER), LATER).status is Status.QUEUED


def test_with_a_key_refusals_for_now_do_not_use_up_its_repeats() -> None:
    job = refused(30, recovery=Recovery.KEY)
    for count in range(1, ATTEMPTS + 1):
        assert job.status is Status.QUEUED
        job = transitions.submitting(claimed(replace(job, wake_at=NOW)), US, NOW, recovery=Recovery.KEY)
        job = answered(job, LOST)
        assert job.attempts[0].counted_times == count
    assert (job.status, len(job.attempts), job.attempts[0].charged) == (Status.FAILED, 1, Charged.UNKNOWN)


@pytest.mark.parametrize("source", [Source.CALLBACK, Source.POLL])
def test_once_the_provider_says_that_its_job_ended_free_a_new_key_is_used(source: Source) -> None:
    for job in (submitting(Recovery.KEY), running(Recovery.KEY), resending()):
        ended = transitions.reported(job, 1, OVERLOADED, NOW, source=source)
        assert (ended.status, ended.attempts[0].outcome, transitions.next_number(ended)) == (
            Status.QUEUED,
            Outcome.REJECTED,
            2,
        )


def test_an_answer_that_names_the_providers_job_is_the_end_of_that_job() -> None:
    job = answered(submitting(Recovery.KEY), replace(BUSY, external_id="their-job"))
    assert (job.status, transitions.next_number(job)) == (Status.QUEUED, 2)


def test_a_repeat_that_is_refused_for_good_leaves_the_doubt() -> None:
    job = answered(resent(), MODERATED)
    assert (job.status, job.attempts[0].charged) == (Status.FAILED, Charged.UNKNOWN)
    assert transitions.reported(job, 1, SUCCESS, NOW).status is Status.STORING


def test_the_refusal_of_a_repeat_after_a_cancel_leaves_the_doubt() -> None:
    job = answered(transitions.canceled(resent(), NOW), REFUSED)
    assert job.attempts[0].charged is Charged.UNKNOWN


def test_while_a_callback_can_still_come_the_job_waits_until_its_deadline() -> None:
    job = transitions.outcome_lost(submitting(Recovery.CALLBACK), US, NOW)
    assert (job.status, job.has_unknown, job.holder, schedule.due_at(job)) == (
        Status.RUNNING,
        True,
        None,
        job.deadline_at,
    )
    assert transitions.reported(job, 1, SUCCESS, NOW).status is Status.STORING
    assert transitions.expired(job, LATER).error == Failure(Code.DEADLINE, "no result within 600 s")


def test_with_a_lookup_the_provider_is_asked_at_once_and_again() -> None:
    job = transitions.outcome_lost(submitting(Recovery.LOOKUP), US, NOW)
    assert (job.status, schedule.due_at(job)) == (Status.RUNNING, NOW)
    assert schedule.is_poll_due(job, NOW)
    later = transitions.poll_postponed(job, NOW)
    assert schedule.due_at(later) is not None
    assert schedule.due_at(later) > NOW


def test_without_recovery_the_outcome_stays_unknown() -> None:
    job = transitions.outcome_lost(submitting(), US, NOW)
    assert job.error is not None
    assert (job.status, job.error.code, job.has_unknown) == (Status.FAILED, Code.OUTCOME_UNKNOWN, True)


def test_charge_again_sends_no_more_than_the_allowed_attempts() -> None:
    job = a_job(on_unknown=OnUnknown.CHARGE_AGAIN)
    for _ in range(ATTEMPTS):
        job = transitions.outcome_lost(
            transitions.submitting(transitions.claimed(replace(job, wake_at=NOW), US, NOW), US, NOW), US, NOW
        )
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.UNKNOWN] * ATTEMPTS
    assert job.error is not None
    assert job.error.code is Code.OUTCOME_UNKNOWN


def test_a_broken_connection_of_an_earlier_attempt_does_not_affect_the_next() -> None:
    """Canceled and retried, the same worker sends attempt 2 while the call of attempt 1 is still open."""
    job = transitions.submitting(
        transitions.claimed(
            transitions.retried(transitions.canceled(submitting(), NOW), NOW, may_charge_again=True), US, NOW
        ),
        US,
        NOW,
    )
    assert transitions.outcome_lost(job, US, NOW, number=1) is job
    assert transitions.outcome_lost(job, US, NOW, number=2).status is Status.FAILED


# --- late results -----------------------------------------------------------------------------------------------------


def test_a_late_result_of_a_failed_job_is_stored() -> None:
    late = transitions.reported(transitions.expired(running(), LATER), 1, SUCCESS, LATER)
    assert (late.status, late.error, late.finished_at) == (Status.STORING, None, None)
    stored = transitions.stored(late, 1, {0: artifact(0), 1: artifact(1)}, LATER)
    assert (stored.status, stored.error, stored.given_up, len(stored.artifacts)) == (Status.SUCCEEDED, None, None, 2)


@pytest.mark.parametrize("given", ["failed, deadline", "failed, unknown", "failed, paid?"])
def test_a_late_result_that_cannot_be_stored_leaves_the_first_error(given: str) -> None:
    job = GIVEN[given]()
    again = ended(transitions.reported(job, 2, SUCCESS, LATER), Code.RESULT_EXPIRED)
    assert (again.status, again.error) == (Status.FAILED, job.error)
    assert [item.code for item in again.missing] == [Code.RESULT_EXPIRED] * 2


def test_the_second_of_two_successes_is_surplus() -> None:
    job = transitions.reported(transitions.reported(second(), 1, SUCCESS, NOW), 2, SUCCESS, NOW)
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.SUCCEEDED, Outcome.SURPLUS]
    assert [attempt.charged for attempt in job.attempts] == [Charged.YES, Charged.YES]
    assert {image.attempt for image in job.pending} == {1}


def test_a_surplus_success_changes_nothing_that_is_stored() -> None:
    done = transitions.stored(transitions.reported(second(), 1, SUCCESS, NOW), 1, {0: artifact(0), 1: artifact(1)}, NOW)
    assert transitions.reported(done, 2, SUCCESS, NOW).artifacts == done.artifacts


def test_an_error_after_the_callback_of_the_same_attempt_is_ignored() -> None:
    job = transitions.reported(submitting(Recovery.CALLBACK), 1, SUCCESS, NOW)
    assert transitions.reported(job, 1, LOST, NOW).attempts == job.attempts
    assert transitions.outcome_lost(job, US, NOW) is job


# --- cancel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [a_job, submitting, running])
def test_a_job_that_waits_for_its_provider_can_be_canceled(given: Callable[[], Job]) -> None:
    job = transitions.canceled(given(), NOW)
    assert (job.status, job.finished_at, schedule.due_at(job), job.holder) == (Status.CANCELED, NOW, None, None)


def test_the_ledger_of_a_canceled_job_says_that_it_may_be_charged() -> None:
    assert transitions.canceled(running(), NOW).attempts[0].charged is Charged.UNKNOWN


def test_a_success_after_the_cancel_is_recorded_but_not_stored() -> None:
    job = transitions.reported(transitions.canceled(running(), NOW), 1, SUCCESS, NOW)
    assert (job.status, job.pending, schedule.due_at(job)) == (Status.CANCELED, (), None)
    assert (job.attempts[0].outcome, job.attempts[0].charged) == (Outcome.SUCCEEDED, Charged.YES)


def test_a_success_after_the_cancel_is_stored_with_keep_late() -> None:
    job = transitions.reported(transitions.canceled(running(keep_late=True), NOW), 1, SUCCESS, NOW)
    assert (job.status, schedule.due_at(job), job.finished_at) == (Status.CANCELED, NOW, NOW)
    held = transitions.claimed(job, US, NOW)
    assert held.holder == US
    kept = transitions.stored(held, 1, {0: artifact(0), 1: missing(1)}, NOW)
    assert (kept.status, kept.error, schedule.due_at(kept), kept.holder) == (Status.CANCELED, None, None, None)
    assert ([item.index for item in kept.artifacts], [item.index for item in kept.missing]) == ([0], [1])


def test_late_images_inside_an_answer_are_stored_too() -> None:
    job = transitions.canceled(running(keep_late=True), NOW)
    done = transitions.reported(job, 1, SUCCESS, NOW, inline={0: artifact(0), 1: artifact(1)})
    assert (done.status, len(done.artifacts), done.finished_at) == (Status.CANCELED, 2, NOW)


def test_a_second_late_success_is_surplus() -> None:
    job = transitions.reported(transitions.canceled(second(keep_late=True), NOW), 1, SUCCESS, NOW)
    job = transitions.reported(job, 2, SUCCESS, NOW)
    assert [attempt.outcome for attempt in job.attempts] == [Outcome.SUCCEEDED, Outcome.SURPLUS]
    assert {image.attempt for image in job.pending} == {1}


# --- storing ----------------------------------------------------------------------------------------------------------


def test_a_job_succeeds_once_each_image_is_stored_or_missing() -> None:
    job = claimed(storing())
    half = transitions.stored(job, 2, {0: artifact(0)}, NOW)
    assert (half.status, half.holder, [image.index for image in half.pending]) == (Status.STORING, None, [1])
    done = transitions.stored(half, 2, {1: artifact(1)}, at(40))
    assert (done.status, done.finished_at, done.missing, schedule.due_at(done)) == (Status.SUCCEEDED, at(40), (), None)


def test_a_job_with_some_images_succeeds_and_says_which_are_missing() -> None:
    job = transitions.stored(storing(), 2, {0: artifact(0), 1: missing(1)}, NOW)
    assert (job.status, job.error) == (Status.SUCCEEDED, None)
    assert [(item.index, item.code) for item in job.missing] == [(1, Code.RESULT_EXPIRED)]


def test_a_job_without_any_image_fails_with_the_first_reason() -> None:
    job = transitions.stored(storing(), 2, {0: missing(0, Code.RESULT_REJECTED), 1: missing(1)}, NOW)
    assert (job.status, job.error) == (Status.FAILED, Failure(Code.RESULT_REJECTED, "its URL died"))


def test_an_image_that_is_stored_twice_counts_once() -> None:
    job = transitions.stored(storing(), 2, {0: artifact(0)}, NOW)
    assert transitions.stored(job, 2, {0: replace(artifact(0), key="other")}, NOW) is job


def test_images_of_another_attempt_are_not_mixed_in() -> None:
    job = storing()
    assert transitions.stored(job, 1, {0: artifact(0)}, NOW) is job


def test_artifacts_are_in_the_providers_order() -> None:
    job = transitions.stored(storing(), 2, {1: artifact(1)}, NOW)
    job = transitions.stored(job, 2, {0: artifact(0)}, NOW)
    assert [item.index for item in job.artifacts] == [0, 1]


def test_images_that_the_provider_did_not_return_are_missing_at_once() -> None:
    job = transitions.reported(running(), 1, Succeeded(IMAGES[1:]), NOW)
    assert [(item.index, item.message) for item in job.missing] == [(0, "the provider returned 1 of 2 images")]
    assert [image.index for image in job.pending] == [1]


def test_a_success_without_images_fails() -> None:
    job = transitions.reported(running(), 1, Succeeded(()), NOW)
    assert (job.status, job.error) == (
        Status.FAILED,
        Failure(Code.PROVIDER_ERROR, "the provider returned 0 of 2 images"),
    )
    assert job.attempts[0].charged is Charged.YES


def test_an_image_that_is_withheld_or_empty_is_missing() -> None:
    job = transitions.reported(running(), 1, Succeeded((Image(0, refused=Code.MODERATED), Image(1))), NOW)
    assert [(item.index, item.code) for item in job.missing] == [(0, Code.MODERATED), (1, Code.PROVIDER_ERROR)]
    assert job.status is Status.FAILED


def test_images_inside_the_answer_are_stored_before_the_record_changes() -> None:
    offered = Succeeded((Image(0, content=b"x"), Image(1, content=b"y")))
    job = transitions.reported(submitting(), 1, offered, NOW, inline={0: artifact(0), 1: Spooled(1, "spool-1")})
    assert [item.index for item in job.artifacts] == [0]
    assert job.pending == (PendingImage(1, 1, InSpool("spool-1")),)
    assert (
        transitions.reported(submitting(), 1, offered, NOW, inline={0: artifact(0), 1: artifact(1)}).status
        is Status.SUCCEEDED
    )


def test_an_image_knows_when_its_url_stops_working() -> None:
    images = (
        Image(0, url="https://provider/0", life_seconds=60),
        Image(1, url="https://provider/1", life_seconds=60, expires_at=LATER),
        Image(2, url="https://provider/2"),
    )
    job = transitions.reported(submitting(), 1, Succeeded(images), NOW)
    assert [image.expires_at for image in job.pending] == [NOW + timedelta(seconds=60), LATER, None]


def test_a_postponed_image_says_when_it_is_tried_again() -> None:
    job = transitions.stored(
        storing(), 2, {0: Postponed(0, 5, "storage away"), 1: Postponed(1, 2, "cut short", bad=True)}, NOW
    )
    assert (job.status, job.wake_at, schedule.due_at(job)) == (Status.STORING, at(32), at(32))
    first, other = job.pending
    assert (first.tries, first.bad_tries, first.failing_since, first.retry_at) == (1, 0, NOW, at(35))
    assert (other.tries, other.bad_tries, other.retry_at) == (1, 1, at(32))


def test_a_postponed_image_remembers_since_when_it_fails() -> None:
    once = transitions.stored(storing(), 2, {0: Postponed(0, 5, "away"), 1: artifact(1)}, NOW)
    twice = transitions.stored(once, 2, {0: Postponed(0, 5, "away")}, at(60))
    assert (twice.pending[0].tries, twice.pending[0].failing_since) == (2, NOW)


def test_a_postponed_image_can_have_a_fresh_url() -> None:
    job = storing()
    fresh = AtUrl("https://provider/fresh")
    again = transitions.stored(job, 2, {0: Postponed(0, 0, "expired", source=fresh)}, NOW)
    assert again.pending[0].source == fresh


def test_the_deadline_does_not_end_storing() -> None:
    job = storing()
    assert transitions.expired(job, LATER) is job
    assert transitions.claimed(job, US, LATER).holder == US


def test_a_storing_job_whose_holder_died_is_due_when_its_images_are() -> None:
    assert schedule.due_at(transitions.outcome_lost(claimed(storing()), US, at(40))) == at(40)
    waits = transitions.stored(storing(), 2, {0: Postponed(0, 60, "away"), 1: artifact(1)}, NOW)
    held = transitions.claimed(waits, US, at(90))
    assert schedule.due_at(transitions.released(replace(held, holder=US), US, at(91))) == at(90)


def test_a_repeated_success_brings_fresh_urls_for_images_that_are_not_stored() -> None:
    job = transitions.stored(storing(), 2, {0: artifact(0)}, NOW)
    fresh = Succeeded((Image(0, url="https://provider/0b"), Image(1, url="https://provider/1b", expires_at=LATER)))
    again = transitions.reported(job, 2, fresh, NOW)
    assert [(image.index, image.source) for image in again.pending] == [
        (1, AtUrl("https://provider/1b", expires_at=LATER))
    ]
    assert len(again.artifacts) == 1


# --- polls ------------------------------------------------------------------------------------------------------------


def test_a_running_attempt_is_polled_when_it_is_due_and_then_later() -> None:
    job = running(polled=True)
    assert schedule.due_at(job) == at(31)
    assert not schedule.is_poll_due(job, at(30))
    assert schedule.is_poll_due(job, at(31))
    asked = transitions.poll_postponed(job, at(70))
    assert schedule.due_at(asked) == at(80)
    assert transitions.poll_postponed(asked, at(75)) is asked


def test_an_attempt_without_an_external_id_cannot_be_polled() -> None:
    job = transitions.reported(submitting(polled=True), 1, Running(None), NOW)
    assert schedule.due_at(job) == job.deadline_at


def test_an_attempt_with_a_callback_is_not_polled() -> None:
    assert schedule.due_at(running(Recovery.CALLBACK, polled=False)) == at(600)


def test_a_poll_that_says_running_plans_the_next_one() -> None:
    job = transitions.reported(running(polled=True), 1, Running("ext"), at(70))
    assert schedule.due_at(job) == at(80)


@pytest.mark.parametrize(("running_for", "seconds"), [(0, 1), (8, 2), (40, 10), (600, 15)])
def test_the_interval_between_polls_grows(running_for: float, seconds: float) -> None:
    assert poll_seconds(running_for) == seconds


def test_no_wake_up_is_planned_past_the_deadline() -> None:
    assert schedule.due_at(transitions.reported(running(polled=True), 1, Running("ext"), at(595))) == at(600)


# --- retries by a person------------------------------------------------------------------------------------------------


def test_a_retry_by_a_person_starts_over_with_new_attempts_and_a_new_deadline() -> None:
    job = transitions.retried(GIVEN["failed, free"](), at(100))
    assert (job.status, job.wake_at, job.deadline_at) == (Status.QUEUED, at(100), at(700))
    assert (job.error, job.finished_at, job.attempts_allowed) == (None, None, 2 + ATTEMPTS)


@pytest.mark.parametrize("given", ["queued", "submitting", "running", "storing", "succeeded"])
def test_only_a_failed_or_canceled_job_can_be_retried(given: str) -> None:
    with pytest.raises(NotPossible, match="only a failed or canceled job"):
        transitions.retried(GIVEN[given](), NOW, may_charge_again=True)


@pytest.mark.parametrize(
    "given", ["failed, unknown", "failed, deadline", "failed, paid?", "failed, no image", "canceled"]
)
def test_a_retry_that_may_be_charged_again_needs_consent(given: str) -> None:
    job = GIVEN[given]()
    with pytest.raises(ChargePossible, match="may_charge_again=True"):
        transitions.retried(job, NOW)
    assert transitions.next_number(transitions.retried(job, NOW, may_charge_again=True)) == 3


def test_a_retry_by_a_person_uses_a_new_key() -> None:
    job = transitions.retried(transitions.expired(submitting(Recovery.KEY), LATER), LATER, may_charge_again=True)
    assert transitions.next_number(job) == 2


@pytest.mark.parametrize("code", [Code.STORAGE_ERROR, Code.RESULT_EXPIRED])
def test_a_retry_only_fetches_images_that_were_paid_and_not_stored(code: Code) -> None:
    job = transitions.retried(ended(storing(), code), at(100))
    assert (job.status, job.wake_at, job.missing, job.error) == (Status.STORING, at(100), (), None)
    assert [(image.index, image.attempt, image.source) for image in job.pending] == [
        (0, 2, AtUrl("https://provider/0")),
        (1, 2, AtUrl("https://provider/1")),
    ]
    assert len(job.attempts) == 2


def test_images_that_are_fetched_again_start_with_fresh_counters() -> None:
    tired = transitions.stored(storing(), 2, {0: Postponed(0, 5, "away"), 1: Postponed(1, 5, "away", bad=True)}, NOW)
    job = transitions.retried(ended(tired, Code.STORAGE_ERROR), at(100))
    assert {(image.tries, image.bad_tries, image.retry_at, image.failing_since) for image in job.pending} == {
        (0, 0, None, None)
    }


def test_only_images_that_can_be_fetched_are_fetched_again() -> None:
    job = transitions.retried(
        transitions.stored(storing(), 2, {0: missing(0, Code.RESULT_REJECTED), 1: missing(1, Code.STORAGE_ERROR)}, NOW),
        NOW,
    )
    assert ([image.index for image in job.pending], [item.index for item in job.missing]) == ([1], [0])


def test_the_retry_of_a_canceled_job_uses_its_late_images() -> None:
    late = transitions.reported(transitions.canceled(running(keep_late=True), NOW), 1, SUCCESS, NOW)
    waiting = transitions.retried(transitions.stored(late, 1, {0: artifact(0)}, NOW), at(40))
    assert (waiting.status, [item.index for item in waiting.artifacts]) == (Status.STORING, [0])
    assert [image.index for image in waiting.pending] == [1]
    done = transitions.retried(transitions.stored(late, 1, {0: artifact(0), 1: artifact(1)}, NOW), at(40))
    assert (done.status, len(done.artifacts), len(done.attempts)) == (Status.SUCCEEDED, 2, 1)


# --- the record -------------------------------------------------------------------------------------------------------


def test_a_repeated_event_is_counted() -> None:
    job = storing()
    for _ in range(3):
        job = transitions.reported(job, 2, SUCCESS, NOW)
    assert (job.timeline[-1].what, job.timeline[-1].times) == ("2 reported again", 3)


def test_the_timeline_keeps_the_latest_events() -> None:
    job = a_job()
    for number in range(TIMELINE_LENGTH + 5):
        job = transitions.noted(job, f"line {number}", NOW)
    assert (len(job.timeline), job.timeline[-1].what) == (TIMELINE_LENGTH, f"line {TIMELINE_LENGTH + 4}")


def test_no_url_is_in_a_repr() -> None:
    assert "https://provider" not in repr(storing())
    assert "https://provider" not in repr(ended(storing(), Code.RESULT_EXPIRED))


def test_an_artifact_that_is_not_bound_to_a_storage_says_where_to_get_one_that_is() -> None:
    for use in (artifact(0).url, artifact(0).read):
        with pytest.raises(NotPossible, match=r"jobs\.get"):
            use()


def test_three_statuses_are_final() -> None:
    assert [status.value for status in Status if status.is_final] == ["succeeded", "failed", "canceled"]


def test_the_timeline_reads_as_the_life_of_the_job() -> None:
    job = transitions.reported(second(), 2, Running("ext"), NOW)
    job = transitions.reported(job, 2, SUCCESS, NOW)
    job = transitions.stored(job, 2, {0: artifact(0), 1: artifact(1)}, NOW)
    assert [event.what for event in job.timeline] == [
        "submitting 1",
        "1 rate_limited: retry",
        "submitting 2",
        "running 2",
        "storing 2",
        "succeeded",
    ]
    assert all(earlier.at <= later.at for earlier, later in pairwise(job.timeline))
