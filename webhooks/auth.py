"""API keys: who may use `/v1`, and for what. Nobody may while there is no key."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from flask import Response

from jobs.state.api_keys import ApiKey, KeyStore, Scope, digest, key_id

from .problems import problem

#: how long the keys in Redis are cached, in seconds: a revoked key is refused after so long at the latest
CACHE_SECONDS = 2.0
#: an unknown key may be a new one: how often it makes us read the keys in Redis again at most, in seconds
NEW_KEY_SECONDS = 0.1

_NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class Caller:
    """The holder of an API key."""

    #: the owner of its jobs
    name: str
    #: the key's own id, by which requests are counted
    key: str
    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        """Whether it may do anything, with the jobs of any owner."""
        return Scope.ADMIN in self.scopes

    def allows(self, scope: Scope) -> bool:
        """Whether its key allows this."""
        return self.is_admin or scope in self.scopes


class ApiKeys:
    """The API keys of the environment and those made by `darkroom keys`. Thread-safe.

    A request with a key of the environment costs no round trip to Redis.
    """

    def __init__(self, configured: Sequence[str], store: KeyStore) -> None:
        self._configured = tuple(digest(key) for key in configured)
        self._store = store
        self._stored: Mapping[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._reading = threading.Lock()

    def caller(self, authorization: str) -> Caller | None:
        """The holder of the key in an `Authorization` header; None when there is no valid key.

        Raises RedisUnavailable when the key may be one that is stored in Redis.
        """
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        # WSGI decodes header bytes as latin-1.
        given = given.strip().encode("latin-1", "replace").decode("utf-8", "replace")
        given_digest = digest(given)
        # Each key is compared, whichever matches: the time reveals nothing.
        if any([hmac.compare_digest(given_digest, one) for one in self._configured]):  # noqa: C419 - a generator would stop at the first
            name = f"env:{hashlib.sha256(given_digest.encode()).hexdigest()[:12]}"
            return Caller(name, name, frozenset({Scope.ADMIN}))
        id = key_id(given)
        key = self._read(CACHE_SECONDS).get(id) or self._read(NEW_KEY_SECONDS).get(id) if id else None
        matches = hmac.compare_digest(given_digest, key.digest if key else _NO_DIGEST)
        return Caller(key.name, key.id, key.scopes) if key and matches else None

    def _read(self, seconds: float) -> Mapping[str, ApiKey]:
        """The keys in Redis by id, not older than that; one thread reads them for all."""
        if time.monotonic() - self._read_at >= seconds:
            with self._reading:
                if time.monotonic() - self._read_at >= seconds:
                    asked_at = time.monotonic()
                    self._stored = {key.id: key for key in self._store.all()}
                    self._read_at = asked_at
        return self._stored


def unauthorized(*, key_given: bool) -> Response:
    """The 401 for a request without a key, or with an invalid one."""
    challenge = 'Bearer realm="darkroom"' + (', error="invalid_token"' if key_given else "")
    return problem(
        HTTPStatus.UNAUTHORIZED,
        "Invalid API key." if key_given else "No API key; send `Authorization: Bearer <key>`.",
        headers={"WWW-Authenticate": challenge},
    )


def forbidden(scope: Scope) -> Response:
    """The 403 for a key without this scope."""
    challenge = f'Bearer realm="darkroom", error="insufficient_scope", scope="{scope}"'
    detail = f"This API key lacks the scope `{scope}`."
    return problem(HTTPStatus.FORBIDDEN, detail, headers={"WWW-Authenticate": challenge}, required_scope=scope.value)
