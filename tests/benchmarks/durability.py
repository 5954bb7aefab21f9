"""`jobs.enqueue` with each of Redis' levels of durability.

With all of them the append-only file is written before Redis answers, so that a job survives the death of any process. With
`always` it is also on the disk, and with `WAIT` in the memory of a replica, so that it survives the loss of a host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from redis import Redis

from .harness import Bench, Row, Sides, compared, enqueue, environment, side_by_side, until

STEPS = 3


def measure(bench: Bench) -> Sequence[Row]:
    """Compare each stronger level with `everysec`."""
    count = bench.size(1000, 100)
    primary, url = _redis(bench)
    always, always_url = _redis(bench)
    always.config_set("appendfsync", "always")
    bench.say("appendfsync always")
    fsynced = _compare(bench, count, url, {"DARKROOM_REDIS_URL": always_url})
    bench.say("one replica that confirms")
    replica, _ = _redis(bench)
    _replicate(replica, primary, url)
    waited = _compare(bench, count, url, {"DARKROOM_REDIS_URL": url, "DARKROOM_REDIS_WAIT_REPLICAS": "1"})
    ours, other = "{:,.0f} jobs/s", "{:,.0f} jobs/s with `everysec`"
    return [
        compared("enqueue with `appendfsync always`", fsynced, ours, other),
        compared("enqueue with one replica and `WAIT`", waited, ours, other),
    ]


def _redis(bench: Bench) -> tuple[Redis, str]:
    url = bench.redis()
    return Redis.from_url(url), url


def _replicate(replica: Redis, primary: Redis, url: str) -> None:
    """Make one server a replica of the other."""
    parts = urlsplit(url)
    if parts.password:
        replica.config_set("masterauth", parts.password)
    replica.replicaof(parts.hostname, parts.port)
    until(
        lambda: primary.info("replication").get("slave0", {}).get("state") == "online", "the first copy of the replica"
    )


def _compare(bench: Bench, count: int, url: str, stronger: dict[str, str]) -> Sides:
    storage = f"file://{bench.folder}"
    usual = {"DARKROOM_REDIS_URL": url}
    return side_by_side(
        bench.size(5, 3), _timed(count, {**stronger, "DARKROOM_STORAGE_URL": storage}), _timed(count, usual)
    )


def _timed(count: int, variables: dict[str, str]) -> Callable[[], float]:
    def timed() -> float:
        with environment(**variables):
            enqueue(20)
            return enqueue(count)

    return timed
