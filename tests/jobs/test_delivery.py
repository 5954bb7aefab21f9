"""Deliveries: when they are retried, and when they end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from jobs import schedule, transitions
from jobs.delivery import GIVE_UP_AFTER, LOG_LENGTH, PAUSES_SECONDS, POSTPONED_SECONDS, Delivery, Try
from jobs.errors import NotPossible
from jobs.job import FINAL, Job, Status

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
URL = "https://app.example.com/hook?token=a-secret"


def a_delivery() -> Delivery:
    return Delivery("msg_1", "succeeded", created_at=NOW, next_at=NOW)


def refused(at: datetime, status: int | None = 500) -> Try:
    return Try(at, status=status, problem=None if status else "app.example.com: no full answer within 8 s")


def a_job(*events: Status, url: str | None = URL) -> Job:
    return Job(
        id="0" * 32,
        operation="deepmode.generate",
        params={"prompt": "a lake at dawn"},
        status=Status.QUEUED,
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW + timedelta(minutes=10),
        deadline_seconds=600,
        images_expected=1,
        wake_at=NOW,
        webhook_url=url,
        webhook_events=events or FINAL,
    )


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_2xx_ends_a_delivery(status: int) -> None:
    done = a_delivery().tried(Try(NOW, status=status))
    assert (done.is_open, done.delivered_at, done.tries) == (False, NOW, 1)


@pytest.mark.parametrize("status", [None, 301, 302, 307, 400, 401, 404, 429, 500, 503])
def test_any_other_answer_is_retried_later(status: int | None) -> None:
    again = a_delivery().tried(refused(NOW, status))
    assert again.next_at is not None
    assert 4 <= (again.next_at - NOW).total_seconds() <= 6
    assert (again.delivered_at, again.tries, again.log) == (None, 1, (refused(NOW, status),))


def test_an_endpoint_that_is_gone_gets_no_more_tries() -> None:
    assert not a_delivery().tried(refused(NOW, 410)).is_open


def tried_out(delivery: Delivery) -> tuple[Delivery, list[datetime]]:
    """The delivery after all its tries have failed, and their times."""
    at: list[datetime] = []
    while delivery.next_at is not None:
        at.append(delivery.next_at)
        delivery = delivery.tried(refused(delivery.next_at))
    return delivery, at


def test_the_pauses_grow_and_differ_between_deliveries() -> None:
    _, at = tried_out(a_delivery())
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(at)]
    for pause, planned in zip(pauses, PAUSES_SECONDS, strict=False):
        assert planned * 0.8 <= pause <= planned * 1.2
    assert at == tried_out(a_delivery())[1]
    assert at != tried_out(replace(a_delivery(), id="msg_other"))[1]


def test_the_last_try_is_made_after_a_day() -> None:
    given_up, at = tried_out(a_delivery())
    assert at[0] == NOW
    assert at[-1] == NOW + GIVE_UP_AFTER
    assert 11 <= len(at) <= 18
    assert (given_up.delivered_at, given_up.tries) == (None, len(at))
    assert len(given_up.log) == LOG_LENGTH
    assert given_up.log[-1].at == at[-1]


def test_a_restarted_delivery_is_tried_for_another_day() -> None:
    given_up, _ = tried_out(a_delivery())
    later = NOW + timedelta(days=3)
    again = given_up.restarted(later)
    assert (again.id, again.next_at, again.log) == (given_up.id, later, given_up.log)
    assert tried_out(again)[1][-1] == later + GIVE_UP_AFTER


@pytest.mark.parametrize(("age_seconds", "pause_seconds"), [(0, 5), (8, 5), (400, 100), (14_000, 3500), (60_000, 3600)])
def test_a_postponed_delivery_waits_a_quarter_of_its_age(age_seconds: float, pause_seconds: float) -> None:
    now = NOW + timedelta(seconds=age_seconds)
    put_off = a_delivery().postponed(now)
    assert put_off.next_at is not None
    assert pause_seconds * 0.8 <= (put_off.next_at - now).total_seconds() <= pause_seconds * 1.2
    assert (put_off.tries, put_off.log) == (0, ())
    assert POSTPONED_SECONDS[0] <= pause_seconds <= POSTPONED_SECONDS[1]


def test_a_delivery_that_is_postponed_for_a_day_is_given_up_and_says_so() -> None:
    over = a_delivery().postponed(NOW + GIVE_UP_AFTER)
    assert not over.is_open
    assert over.log[-1].problem == "too many other webhooks were being sent to its host"


# On the job


def test_a_job_sends_webhooks_for_the_chosen_statuses() -> None:
    told = transitions.canceled(a_job(), NOW)
    assert [(item.id, item.event, item.next_at) for item in told.deliveries] == [(f"msg_{'0' * 32}_1", "canceled", NOW)]
    assert transitions.canceled(a_job(Status.SUCCEEDED), NOW).deliveries == ()
    assert transitions.canceled(a_job(url=None), NOW).deliveries == ()


def test_each_status_is_a_delivery_of_its_own() -> None:
    job = transitions.canceled(transitions.submitting(transitions.claimed(a_job(*Status), "w", NOW), "w", NOW), NOW)
    assert [item.event for item in job.deliveries] == ["submitting", "canceled"]
    assert len({item.id for item in job.deliveries}) == 2


def test_a_final_job_is_due_until_its_deliveries_ended() -> None:
    job = transitions.canceled(a_job(), NOW)
    assert (schedule.due_at(job), schedule.is_complete(job)) == (NOW, False)
    told = transitions.delivery_tried(job, job.deliveries[0].id, Try(NOW, status=200))
    assert (schedule.due_at(told), schedule.is_complete(told), told.updated_at) == (None, True, job.updated_at)


def test_a_try_of_an_ended_delivery_changes_nothing() -> None:
    job = transitions.canceled(a_job(), NOW)
    told = transitions.delivery_tried(job, job.deliveries[0].id, Try(NOW, status=200))
    assert transitions.delivery_tried(told, job.deliveries[0].id, refused(NOW)) is told
    assert transitions.delivery_tried(job, "msg_of_another", Try(NOW, status=200)) is job


def test_only_due_deliveries_are_postponed() -> None:
    job = transitions.canceled(a_job(), NOW)
    later = transitions.delivery_tried(job, job.deliveries[0].id, refused(NOW))
    assert transitions.deliveries_postponed(later, NOW) is later
    assert transitions.deliveries_postponed(job, NOW).deliveries[0].next_at > NOW  # type: ignore[operator]


def test_one_delivery_or_all_can_be_restarted() -> None:
    job = transitions.canceled(transitions.submitting(transitions.claimed(a_job(*Status), "w", NOW), "w", NOW), NOW)
    for item in job.deliveries:
        job = transitions.delivery_tried(job, item.id, Try(NOW, status=200))
    first, _second = (item.id for item in job.deliveries)
    assert [item.is_open for item in transitions.redelivered(job, first, NOW).deliveries] == [True, False]
    assert [item.is_open for item in transitions.redelivered(job, None, NOW).deliveries] == [True, True]
    for no_such in (replace(job, deliveries=()), job):
        with pytest.raises(NotPossible, match="has no such delivery"):
            transitions.redelivered(no_such, "msg_of_another", NOW)


def test_the_webhook_url_is_not_in_a_repr() -> None:
    assert "secret" not in repr(transitions.canceled(a_job(), NOW))
