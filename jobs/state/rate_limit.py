"""How often an API key may ask, counted in Redis for all processes together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from redis import Redis

from . import keys, scripts
from .connection import RetryingRedis, connect

#: how long one count may take, in seconds
ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Count:
    """What became of one request."""

    #: until the request would be allowed, in seconds; 0: it is allowed
    wait_seconds: int
    #: how many more requests are allowed now
    remaining: int
    #: until the allowance is full again, in seconds
    full_in_seconds: int


class RateLimit:
    """So many requests in so many seconds for each key, evenly spread in the long run. Thread-safe."""

    def __init__(self, redis: Redis, requests: int, seconds: int) -> None:
        self.requests = requests
        self.seconds = seconds
        self._redis = RetryingRedis(redis)
        self._take_request = redis.register_script(scripts.TAKE_REQUEST)

    @classmethod
    def open(cls, url: str, rate: tuple[int, int]) -> Self:
        """The limit of `rate` (requests, seconds), counted in this Redis; it connects when it is first used."""
        return cls(connect(url, answer_seconds=ANSWER_SECONDS), *rate)

    def count(self, key: str) -> Count:
        """Count one request of a key, if it is allowed. One round trip. Raises RedisUnavailable."""
        window_ms = self.seconds * 1000
        interval_ms = window_ms / self.requests
        wait_ms, full_in_ms = self._redis.run(self._take_request, [keys.rate(key)], [window_ms, interval_ms])
        remaining = 0 if wait_ms else max(0, math.floor((window_ms - full_in_ms) / interval_ms))
        return Count(math.ceil(wait_ms / 1000), remaining, math.ceil(full_in_ms / 1000))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
