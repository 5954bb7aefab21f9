"""Redis' clock between two of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobs.state.clock import CLOCK_SECONDS, Clock, to_ms

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Seconds:
    """A clock that stands still until a test moves it."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


def test_the_clock_counts_on_from_the_last_answer_of_redis_whatever_the_hosts_time_is() -> None:
    seconds = Seconds()
    clock = Clock(seconds)
    clock.set(to_ms(NOON))
    seconds.at += 2.5
    assert clock.now() == NOON + timedelta(seconds=2.5)
    clock.set(to_ms(NOON) + 2400)
    assert clock.now() == NOON + timedelta(seconds=2.4)


def test_an_answer_of_redis_is_good_for_a_while() -> None:
    seconds = Seconds()
    clock = Clock(seconds)
    assert not clock.is_fresh
    clock.set(to_ms(NOON))
    seconds.at += CLOCK_SECONDS - 1
    assert clock.is_fresh
    seconds.at += 1
    assert not clock.is_fresh


def test_the_clock_is_that_of_the_host_until_redis_was_heard() -> None:
    assert abs(Clock().now() - datetime.now(UTC)) < timedelta(seconds=1)
