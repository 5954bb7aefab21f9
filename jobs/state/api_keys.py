"""API keys in Redis: who may use the HTTP API, beside those of the environment.

A key is `drk_<id>_<secret>`. Only the SHA-256 of it is kept: the secret holds 256 random bits, so nobody can try them all, and
a slow hash, which protects what people choose, would only slow every request down. Keys of one name are one owner: that is
how a key is changed over.

    darkroom:keys    a hash: the key's id, and its name, scopes, time and digest as JSON
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self, cast

from pydantic import TypeAdapter
from redis import Redis

from ..errors import FieldError, InvalidRequest
from .connection import RetryingRedis, connect
from .keys import API_KEYS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = re.compile(r"drk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class Scope(StrEnum):
    """What a key allows."""

    JOBS_READ = "jobs:read"  #: to see its own jobs, and to wait for them
    JOBS_WRITE = "jobs:write"  #: to enqueue, cancel, retry, upload
    ADMIN = "admin"  #: all of it, with everybody's jobs


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept."""

    id: str
    #: whose it is: the owner of its jobs
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    #: SHA-256 of the key, hex
    digest: str = field(repr=False)


class KeyStore:
    """The keys in one Redis database. Thread-safe. Raises RedisUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = RetryingRedis(redis)

    @classmethod
    def open(cls, url: str) -> Self:
        """The keys at this Redis URL; connects when first used."""
        return cls(connect(url, answer_seconds=3))

    def new(self, name: str, scopes: Iterable[str]) -> tuple[ApiKey, str]:
        """A new key: what is kept of it, and the key itself, which nobody can show again. Raises InvalidRequest."""
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                FieldError(
                    "name", f"should be 1 to 64 letters, digits, dots, dashes and underscores, not {name[:80]!r}"
                )
            )
        wanted = frozenset(scopes)
        if not wanted or wanted - set(Scope):
            raise InvalidRequest(
                FieldError("scope", f"should be of {', '.join(Scope)}, not {', '.join(sorted(wanted)) or 'none'}")
            )
        id = secrets.token_hex(6)
        secret = f"drk_{id}_{secrets.token_urlsafe(32)}"
        key = ApiKey(id, name, frozenset(map(Scope, wanted)), datetime.now(UTC), digest(secret))
        self._redis.call(lambda redis: redis.hset(API_KEYS, id, _kept.dump_json(key).decode()))
        return key, secret

    def all(self) -> tuple[ApiKey, ...]:
        """All keys, the oldest first. One round trip."""
        found = cast(dict[bytes, bytes], self._redis.call(lambda redis: redis.hgetall(API_KEYS)))
        return tuple(sorted(map(_kept.validate_json, found.values()), key=lambda key: key.created_at))

    def revoke(self, name_or_id: str) -> tuple[ApiKey, ...]:
        """Forgets a key by its id, or all of a name; returns them. Receivers learn of it within seconds."""
        gone = tuple(key for key in self.all() if name_or_id in (key.id, key.name))
        if gone:
            self._redis.call(lambda redis: redis.hdel(API_KEYS, *(key.id for key in gone)))
        return gone

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def key_id(key: str) -> str | None:
    """The id inside a key, or None when it is none of ours by its looks."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


_kept = TypeAdapter(ApiKey)
