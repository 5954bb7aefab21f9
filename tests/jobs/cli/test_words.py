"""Amounts, durations and times in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs import Attempt, Charged, Cost, InvalidRequest, Outcome, Unit
from jobs.cli.words import amount, attempt_cost, duration, read_since, total_cost

NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)


def attempt(charged: Charged, cost: Cost | None = None, expected: Cost | None = None) -> Attempt:
    return Attempt(
        1, "phota.remix", NOW, "a-worker", Outcome.SUCCEEDED, charged=charged, cost=cost, expected_cost=expected
    )


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.36, Unit.USD, "$0.36"),
        (0.1, Unit.USD, "$0.10"),
        (12, Unit.USD, "$12.00"),
        (0.0045, Unit.USD, "$0.0045"),
        (1, Unit.CREDIT, "1 credit"),
        (3, Unit.CREDIT, "3 credits"),
        (0.5, Unit.CREDIT, "0.5 credits"),
        (1200, Unit.TOKEN, "1,200 tokens"),
    ],
)
def test_an_amount_has_its_unit(value: float, unit: Unit, words: str) -> None:
    assert amount(Cost(value, unit)) == words


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ([], "nothing"),
        ([attempt(Charged.NO, expected=Cost(1, Unit.CREDIT))], "nothing"),
        ([attempt(Charged.YES, Cost(3, Unit.CREDIT))], "3 credits"),
        ([attempt(Charged.UNKNOWN, expected=Cost(0.36, Unit.USD))], "about $0.36"),
        ([attempt(Charged.UNKNOWN)], "unknown"),
        ([attempt(Charged.YES, Cost(1, Unit.CREDIT)), attempt(Charged.YES, Cost(2, Unit.CREDIT))], "3 credits"),
        (
            [attempt(Charged.YES, Cost(1, Unit.CREDIT)), attempt(Charged.UNKNOWN)],
            "about 1 credit and an unknown amount",
        ),
        ([attempt(Charged.YES, Cost(1, Unit.CREDIT)), attempt(Charged.YES, Cost(0.5, Unit.USD))], "1 credit + $0.50"),
    ],
)
def test_the_cost_of_a_job_is_the_sum_of_what_was_or_may_have_been_charged(attempts: list[Attempt], words: str) -> None:
    assert total_cost(attempts) == words


def test_the_cost_of_an_attempt_is_what_the_provider_reported_or_what_was_expected() -> None:
    expected = Cost(0.36, Unit.USD)
    assert attempt_cost(attempt(Charged.YES, Cost(0.24, Unit.USD), expected)) == "$0.24"
    assert attempt_cost(attempt(Charged.UNKNOWN, None, expected)) == "about $0.36"
    assert attempt_cost(attempt(Charged.YES)) == "unknown"
    assert attempt_cost(attempt(Charged.NO, None, expected)) == "nothing"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0.42, "0.4 s"),
        (12.4, "12 s"),
        (119, "119 s"),
        (180, "3 min"),
        (7200, "2 h"),
        (432_000, "5 days"),
    ],
)
def test_a_duration_is_as_precise_as_it_is_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("45s", NOW - timedelta(seconds=45)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-26", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-26T08:00", NOW),
        ("2026-11-26T09:00:00+01:00", NOW),
        ("2026-11-26T08:00:00Z", NOW),
    ],
)
def test_since_is_an_age_or_a_time_in_utc(text: str, at: datetime) -> None:
    assert read_since(text, NOW) == at


@pytest.mark.parametrize("text", ["", "2", "2 h", "2w", "-2h", "yesterday", "1234567d"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--since: .* for example 30m, 2h or 7d"):
        read_since(text, NOW)
