"""API keys in Redis: who may use the HTTP API, beside the keys in the environment.

A key is `drk_<id>_<secret>`. Only its SHA-256 is kept. The secret has 256 random bits, so that nobody can try all of them; a
slow hash, which protects passwords that people choose, would only slow down every request. All keys of one name are one owner:
to rotate a key, create a second one of the same name and revoke the first.
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

from ..errors import FieldError, InvalidRequest, not_one_of
from .connection import RetryingRedis, connect
from .keys import API_KEYS

#: for one answer of Redis, in seconds
ANSWER_SECONDS = 3.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = re.compile(r"drk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class Scope(StrEnum):
    """What a key allows."""

    JOBS_READ = "jobs:read"  #: to see its owner's jobs, and to wait for them
    JOBS_WRITE = "jobs:write"  #: to enqueue, cancel, retry and upload
    ADMIN = "admin"  #: everything, with the jobs of all owners


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key."""

    id: str
    #: the owner of the jobs that are created with it
    name: str
    #: what it allows
    scopes: frozenset[Scope]
    created_at: datetime
    #: SHA-256 of the key, hex
    digest: str = field(repr=False)


class KeyStore:
    """The API keys in one Redis database. Thread-safe. Every method raises RedisUnavailable when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = RetryingRedis(redis)

    @classmethod
    def open(cls, url: str) -> Self:
        """The keys in the Redis at this URL; it connects when it is first used."""
        return cls(connect(url, answer_seconds=ANSWER_SECONDS))

    def create(self, name: str, scopes: Iterable[str]) -> tuple[ApiKey, str]:
        """Create a key for an owner, with these scopes (see `Scope`).

        Returns what is kept of the key, and the key itself, which cannot be shown again. Raises InvalidRequest.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                FieldError(
                    "name", f"should be 1 to 64 letters, digits, dots, dashes and underscores, not {name[:80]!r}"
                )
            )
        wanted = frozenset(scopes)
        wrong = sorted(wanted - set(Scope)) if wanted else [""]
        if wrong:
            raise InvalidRequest(*(not_one_of("scope", scope, tuple(Scope)) for scope in wrong))
        id = secrets.token_hex(6)
        secret = f"drk_{id}_{secrets.token_urlsafe(32)}"
        key = ApiKey(id, name, frozenset(map(Scope, wanted)), datetime.now(UTC), digest(secret))
        self._redis.call(lambda redis: redis.hset(API_KEYS, id, _JSON.dump_json(key).decode()))
        return key, secret

    def all(self) -> tuple[ApiKey, ...]:
        """All keys, the oldest first. One round trip."""
        found = cast(dict[bytes, bytes], self._redis.call(lambda redis: redis.hgetall(API_KEYS)))
        return tuple(sorted(map(_JSON.validate_json, found.values()), key=lambda key: key.created_at))

    def revoke(self, name_or_id: str) -> tuple[ApiKey, ...]:
        """Delete the key of this id, or all keys of this name, and return them. Receivers notice within seconds."""
        revoked = tuple(key for key in self.all() if name_or_id in (key.id, key.name))
        if revoked:
            self._redis.call(lambda redis: redis.hdel(API_KEYS, *(key.id for key in revoked)))
        return revoked

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def digest(key: str) -> str:
    """The SHA-256 of a key, in hex."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def key_id(key: str) -> str | None:
    """The id in a key, or None for anything that does not look like a key."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


_JSON = TypeAdapter(ApiKey)
