"""Redis' time between two answers of Redis."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobs.state.clock import CLOCK_SECONDS, Clock, to_ms

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Seconds:
    """A clock that counts when it is told to."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


def test_goes_on_from_what_redis_said_last_whatever_the_hosts_own_time_is() -> None:
    seconds = Seconds()
    clock = Clock(seconds)
    clock.set(to_ms(NOON))
    seconds.at += 2.5
    assert clock.now() == NOON + timedelta(seconds=2.5)
    clock.set(to_ms(NOON) + 2400)
    assert clock.now() == NOON + timedelta(seconds=2.4)


def test_is_asked_for_again_when_it_has_not_been_heard_for_long() -> None:
    seconds = Seconds()
    clock = Clock(seconds)
    assert not clock.fresh
    clock.set(to_ms(NOON))
    seconds.at += CLOCK_SECONDS - 1
    assert clock.fresh
    seconds.at += 1
    assert not clock.fresh


def test_is_the_hosts_until_redis_was_heard() -> None:
    assert abs(Clock().now() - datetime.now(UTC)) < timedelta(seconds=1)
