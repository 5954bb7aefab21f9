"""Seats for waiters."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from jobs import SettingsError
from webhooks.waiting import ASSUMED_THREADS, Waiters, threads_of


@pytest.mark.parametrize(("threads", "seats"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (8, 6), (64, 48)])
def test_at_least_a_quarter_of_the_threads_stays_free(threads: int, seats: int) -> None:
    waiters = Waiters(threads)

    with ExitStack() as stack:
        taken = [stack.enter_context(waiters.seat()) for _ in range(threads)]

        assert taken == [True] * seats + [False] * (threads - seats)


def test_a_seat_is_given_back() -> None:
    waiters = Waiters(2)
    for _ in range(3):
        with waiters.seat() as taken:
            assert taken
    with pytest.raises(RuntimeError), waiters.seat():
        raise RuntimeError
    with waiters.seat() as taken:
        assert taken


def test_the_server_says_how_many_threads_it_has() -> None:
    assert threads_of({"GRANIAN_BLOCKING_THREADS": "32"}) == 32
    assert threads_of({}) == threads_of({"GRANIAN_BLOCKING_THREADS": ""}) == ASSUMED_THREADS


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_what_is_no_number_of_threads_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match=r"GRANIAN_BLOCKING_THREADS=32"):
        threads_of({"GRANIAN_BLOCKING_THREADS": value})
