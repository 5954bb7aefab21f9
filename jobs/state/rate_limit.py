"""How often an API key may ask: one script in Redis, shared by all processes (the generic cell rate algorithm).

Headers as in draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ..errors import RedisUnavailable
from .connection import Wire
from .keys import PREFIX

#: what is kept of a key is the time at which all of its requests are forgotten
_TAKE = """
-- KEYS full_at; ARGV window_ms interval_ms
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + ARGV[2]
local over = full_at - now - ARGV[1]
if over > 0 then return {math.ceil(over), math.ceil(full_at - now - ARGV[2])} end
redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
return {0, math.ceil(full_at - now)}
"""


@dataclass(frozen=True)
class Taken:
    """What became of one request."""

    #: 0: it may pass
    wait_seconds: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Limit:
    """So many requests in so many seconds, for each key. Thread-safe."""

    requests: int
    seconds: int
    wire: Wire
    redis: Redis

    @classmethod
    def open(cls, url: str, rate: tuple[int, int]) -> Self:
        """The limit, counted at this Redis URL; connects when first used."""
        redis = Redis.from_url(
            url, socket_timeout=3, socket_connect_timeout=3, socket_keepalive=True, retry=Retry(NoBackoff(), 1)
        )
        return cls(*rate, Wire(redis), redis)

    def take(self, key: str) -> Taken:
        """Counts one request of a key. One round trip. Raises RedisUnavailable."""
        window, interval = self.seconds * 1000, self.seconds * 1000 / self.requests
        script = self.redis.register_script(_TAKE)
        try:
            over_ms, used_ms = self.wire.run(script, [f"{PREFIX}rate:{key}"], [window, interval])
        except RedisError as error:
            raise RedisUnavailable(f"Redis: {type(error).__name__}") from error
        left = 0 if over_ms else max(0, math.floor((window - used_ms) / interval))
        headers = {
            "RateLimit-Policy": f'"key";q={self.requests};w={self.seconds}',
            "RateLimit": f'"key";r={left};t={math.ceil(used_ms / 1000)}',
        }
        return Taken(math.ceil(over_ms / 1000), headers)

    def close(self) -> None:
        """Close the connections."""
        self.wire.close()
        self.redis.close()
