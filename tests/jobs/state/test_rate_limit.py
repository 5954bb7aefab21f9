"""Requests that are counted in Redis, by several processes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from jobs.errors import RedisUnavailable
from jobs.state.rate_limit import RateLimit

Open = Callable[[int, int], RateLimit]


@pytest.fixture
def open_limit(redis_url: str) -> Iterator[Open]:
    with ExitStack() as stack:

        def opened(requests: int, seconds: int) -> RateLimit:
            limit = RateLimit.open(redis_url, (requests, seconds))
            stack.callback(limit.close)
            return limit

        yield opened


def test_a_request_beyond_the_limit_is_told_when_to_come_again(open_limit: Open) -> None:
    limit = open_limit(3, 60)
    counts = [limit.count("a-key") for _ in range(4)]
    assert [(count.wait_seconds, count.remaining) for count in counts[:3]] == [(0, 2), (0, 1), (0, 0)]
    assert 18 <= counts[3].wait_seconds <= 20
    assert 58 <= counts[3].full_in_seconds <= 60
    assert limit.count("another-key").wait_seconds == 0


def test_processes_and_threads_share_one_count(open_limit: Open) -> None:
    processes = [open_limit(50, 3600) for _ in range(2)]
    with ThreadPoolExecutor(8) as clients:
        counts = list(clients.map(lambda number: processes[number % 2].count("a-key"), range(120)))
    assert sum(not count.wait_seconds for count in counts) == 50


def test_the_allowance_comes_back_with_time(open_limit: Open) -> None:
    limit = open_limit(1000, 1)
    assert not any(limit.count("a-key").wait_seconds for _ in range(300))


def test_without_redis_nothing_is_counted(free_port: int) -> None:
    limit = RateLimit.open(f"redis://:a-password@127.0.0.1:{free_port}/3", (3, 60))
    with pytest.raises(RedisUnavailable, match=rf"Redis at 127.0.0.1:{free_port}/3 is not available"):
        limit.count("a-key")
    limit.close()
