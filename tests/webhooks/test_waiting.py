"""The bound on threads that wait."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from jobs import SettingsError
from webhooks.waiting import DEFAULT_THREADS, WaitingThreads, thread_count


@pytest.mark.parametrize(("threads", "limit"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (8, 6), (64, 48)])
def test_at_least_a_quarter_of_the_threads_does_not_wait(threads: int, limit: int) -> None:
    waiting = WaitingThreads(threads)

    with ExitStack() as stack:
        allowed = [stack.enter_context(waiting.wait()) for _ in range(threads)]

        assert allowed == [True] * limit + [False] * (threads - limit)


def test_another_thread_may_wait_when_one_is_done() -> None:
    waiting = WaitingThreads(2)
    for _ in range(3):
        with waiting.wait() as allowed:
            assert allowed
    with pytest.raises(RuntimeError), waiting.wait():
        raise RuntimeError
    with waiting.wait() as allowed:
        assert allowed


@pytest.mark.parametrize(("threads", "readers"), [(1, 1), (4, 1), (8, 1), (64, 8)])
def test_half_of_the_other_threads_may_read_bodies(threads: int, readers: int) -> None:
    waiting = WaitingThreads(threads)

    with ExitStack() as stack:
        for _ in range(waiting.limit):
            stack.enter_context(waiting.wait())
        allowed = [stack.enter_context(waiting.read()) for _ in range(readers + 1)]

        assert allowed == [True] * readers + [False]


def test_bodies_are_read_where_nothing_waits() -> None:
    waiting = WaitingThreads(8)

    with ExitStack() as stack:
        assert all(stack.enter_context(waiting.read()) for _ in range(waiting.limit + 1))


def test_the_server_says_how_many_threads_it_has() -> None:
    assert thread_count({"GRANIAN_BLOCKING_THREADS": "32"}) == 32
    assert thread_count({}) == thread_count({"GRANIAN_BLOCKING_THREADS": ""}) == DEFAULT_THREADS


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_malformed_number_of_threads_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match=r"GRANIAN_BLOCKING_THREADS=32"):
        thread_count({"GRANIAN_BLOCKING_THREADS": value})
