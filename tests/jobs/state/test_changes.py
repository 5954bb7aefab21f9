"""Waiting for changes of jobs: who is woken, when, and what it costs Redis."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from redis import Redis

from jobs.state.changes import Changes, Waiter
from jobs.state.keys import channel

JOB, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def changes(redis: Redis) -> Iterator[Changes]:
    changes = Changes(redis)
    yield changes
    changes.close()


def subscriptions(redis: Redis) -> int:
    return sum(int(client["sub"]) > 0 for client in redis.client_list())


def all_listeners() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "darkroom-changes"}


@pytest.fixture
def listeners() -> Callable[[], int]:
    """Counts the listeners that the test has started; those of earlier tests end by themselves."""
    earlier = all_listeners()
    return lambda: len(all_listeners() - earlier)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition holds within ten seconds."""
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def woken(waiter: Waiter) -> bool:
    """Whether the waiter is woken within ten seconds."""
    return any(waiter.wait(5) for _ in range(2))


def test_a_waiter_is_woken_by_each_change_of_its_job_and_by_no_other(changes: Changes, redis: Redis) -> None:
    with changes.listen(JOB) as waiter, changes.listen(OTHER) as other:
        assert woken(waiter), "the beginning of the subscription counts as a change"
        assert woken(other)

        for _ in range(3):
            redis.publish(channel(JOB), "running")
            assert woken(waiter)

        assert not waiter.wait(0.05)
        assert not other.wait(0.05)


def test_one_waiter_can_wait_for_several_jobs(changes: Changes, redis: Redis) -> None:
    with changes.listen(JOB, OTHER) as waiter:
        assert eventually(lambda: redis.pubsub_numsub(channel(JOB), channel(OTHER))[1][1] == 1)
        assert woken(waiter)
        while waiter.wait(0.05):
            pass
        redis.publish(channel(OTHER), "running")
        assert woken(waiter)


def test_a_thousand_waiters_hold_one_connection_and_one_thread(
    changes: Changes, redis: Redis, listeners: Callable[[], int]
) -> None:
    connected, subscribed = {client["id"] for client in redis.client_list()}, subscriptions(redis)
    names = [f"{number:032}" for number in range(500)]
    with ExitStack() as stack:
        waiters = [stack.enter_context(changes.listen(name)) for name in names * 2]
        assert eventually(lambda: redis.pubsub_numsub(channel(names[-1]))[0][1] == 1)
        assert all(map(woken, waiters[:500]))
        while any(waiter.wait(0) for waiter in waiters):
            pass

        for name in names:
            redis.publish(channel(name), "running")

        assert all(map(woken, waiters)), "each is woken, also where two wait for the same job"
        assert subscriptions(redis) == subscribed + 1
        assert len({client["id"] for client in redis.client_list()} - connected) == 1
        assert listeners() == 1


def test_no_change_is_missed_while_the_subscription_begins(changes: Changes, redis: Redis) -> None:
    for number in range(50):
        name, done = f"{number:032}", threading.Event()
        change = threading.Thread(target=lambda name=name, done=done: (done.set(), redis.publish(channel(name), "x")))
        with changes.listen(name) as waiter:
            change.start()
            while not done.is_set():
                assert woken(waiter)
        change.join()


def test_waiters_are_woken_when_a_lost_connection_is_back(changes: Changes, redis: Redis) -> None:
    with changes.listen(JOB) as waiter:
        assert woken(waiter)
        redis.client_kill_filter(_type="pubsub")
        assert woken(waiter), "a change may have been missed meanwhile"
        while waiter.wait(0.05):
            pass
        redis.publish(channel(JOB), "running")
        assert woken(waiter)


def test_a_wait_ends_in_time_while_redis_is_away(free_port: int) -> None:
    away = Changes(Redis(port=free_port))
    with away.listen(JOB) as waiter:
        assert not waiter.wait(0.05)
        assert not waiter.wait(-1)
    away.close()


def test_closing_wakes_the_waiters_and_leaves_no_thread_and_no_connection(
    changes: Changes, redis: Redis, listeners: Callable[[], int]
) -> None:
    with changes.listen(JOB) as waiter:
        assert woken(waiter)
        changes.close()
        assert waiter.wait(5)
        assert listeners() == 0
        assert subscriptions(redis) == 0
    with changes.listen(JOB) as waiter:
        assert not waiter.wait(0.05), "a closed one starts nothing"
        assert listeners() == 0


def test_the_listener_ends_when_nobody_waits_and_starts_again(
    changes: Changes, redis: Redis, listeners: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.state.changes.IDLE_SECONDS", 0.05)
    for _ in range(2):
        with changes.listen(JOB) as waiter:
            assert woken(waiter)
            assert listeners() == 1
        assert eventually(lambda: listeners() == 0)
        assert subscriptions(redis) == 0


def test_a_forked_child_subscribes_for_itself_and_leaves_its_parent_alone(
    changes: Changes, redis: Redis, listeners: Callable[[], int]
) -> None:
    with changes.listen(JOB) as waiter:
        assert woken(waiter)
        child = os.fork()
        if not child:
            status = 1
            try:
                with changes.listen(OTHER) as own:
                    status = 0 if woken(own) and listeners() == 1 else 1
                changes.close()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        while waiter.wait(0.05):
            pass
        redis.publish(channel(JOB), "running")
        assert woken(waiter)
