"""Seats for waiters, and one connection for all of them."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from jobs import SettingsError
from jobs.report import Code, Failed
from webhooks.waiting import ASSUMED_THREADS, Hub, Waiters, threads_of

ENDED = Failed(Code.MODERATED, "no")


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


class TestTheHub:
    @pytest.fixture
    def hub(self, redis_url: str) -> Hub:
        return Hub(redis_url)

    def test_wakes_each_waiter_for_its_own_job_at_once(self, hub: Hub, jobs: Any) -> None:
        waiting = [jobs.submitting() for _ in range(10)]
        ended: dict[str, float] = {}

        def wait(job: Any) -> None:
            hub.wait(job.id, lambda: jobs.get(job), 20)
            ended[job.id] = time.monotonic()

        threads = [threading.Thread(target=wait, args=(job,)) for job in waiting for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        started = time.monotonic()
        for job in waiting:
            jobs.reported(job, ENDED)
        for thread in threads:
            thread.join()

        assert max(ended.values()) - started < 2

    def test_uses_one_connection_to_listen(self, hub: Hub, jobs: Any, redis: Any) -> None:
        def listening() -> int:
            return len([client for client in redis.client_list() if int(client["sub"]) > 0])

        before = listening()
        with ExitStack() as stack:
            for event in [stack.enter_context(hub.changes(jobs.queued().id)) for _ in range(20)]:
                assert event.wait(2)

            assert listening() == before + 1

    def test_misses_nothing_that_changes_while_it_begins_to_listen(self, hub: Hub, jobs: Any) -> None:
        for _ in range(20):
            job = jobs.submitting()
            threading.Thread(target=jobs.reported, args=(job, ENDED)).start()
            started = time.monotonic()

            assert hub.wait(job.id, lambda job=job: jobs.get(job), 20).status.final
            assert time.monotonic() - started < 2

    def test_listens_again_after_its_connection_was_cut(self, hub: Hub, jobs: Any, redis: Any) -> None:
        job = jobs.submitting()
        with hub.changes(job.id) as changed:
            assert changed.wait(2)
            changed.clear()
            redis.client_kill_filter(_type="pubsub")
            assert changed.wait(5), "whoever waits looks again, for a change may have been missed"
            changed.clear()

            jobs.reported(job, ENDED)

            assert changed.wait(2)

    def test_forgets_whoever_left(self, hub: Hub, jobs: Any) -> None:
        with hub.changes(jobs.queued().id):
            pass

        assert not hub._events
