"""Who may use `/v1`: bearers of a configured key, or of one made by `darkroom keys`; nobody while there is none."""

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

#: how long the keys in Redis are believed: a revoked key is refused after so long at the latest
TRUST_SECONDS = 2.0
#: how soon a key that is not known is looked for again: whoever tries keys must not make us read them each time
NEWS_SECONDS = 0.1

_NOBODYS = "0" * 64


@dataclass(frozen=True)
class Caller:
    """Whoever holds a key."""

    #: the owner of its jobs
    name: str
    #: the key's own name, for what is counted by key
    key: str
    scopes: frozenset[Scope]

    @property
    def admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether the key allows it."""
        return self.admin or scope in self.scopes


class Keys:
    """The API keys, as digests. Thread-safe. A request with a key of the environment costs no round trip to Redis."""

    def __init__(self, configured: Sequence[str], store: KeyStore) -> None:
        self._configured = tuple(digest(key) for key in configured)
        self._store = store
        self._made: Mapping[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._reading = threading.Lock()

    def caller(self, authorization: str) -> Caller | None:
        """Whose key an `Authorization` header holds. Raises RedisUnavailable when it may be one that cannot be looked up."""
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        # WSGI hands header bytes over as latin-1.
        given = given.strip().encode("latin-1", "replace").decode("utf-8", "replace")
        shown = digest(given)
        # Every key is compared, whichever matches.
        if any([hmac.compare_digest(shown, one) for one in self._configured]):  # noqa: C419
            name = f"env:{hashlib.sha256(shown.encode()).hexdigest()[:12]}"
            return Caller(name, name, frozenset({Scope.ADMIN}))
        return self._made_by_command(given, shown)

    def _made_by_command(self, given: str, shown: str) -> Caller | None:
        id = key_id(given)
        key = self._key(id) if id else None
        matches = hmac.compare_digest(shown, key.digest if key else _NOBODYS)
        return Caller(key.name, key.id, key.scopes) if key and matches else None

    def _key(self, id: str) -> ApiKey | None:
        """The key of this id; one that is not known may be new."""
        return self._known(TRUST_SECONDS).get(id) or self._known(NEWS_SECONDS).get(id)

    def _known(self, seconds: float) -> Mapping[str, ApiKey]:
        """The keys in Redis, read again when what was read is older than that; one thread reads for all."""
        if time.monotonic() - self._read_at >= seconds:
            with self._reading:
                if time.monotonic() - self._read_at >= seconds:
                    asked_at = time.monotonic()
                    self._made = {key.id: key for key in self._store.all()}
                    self._read_at = asked_at
        return self._made


def unauthorized(*, given: bool) -> Response:
    """401; `given` tells whether there was a key."""
    challenge = 'Bearer realm="darkroom"' + (', error="invalid_token"' if given else "")
    return problem(
        HTTPStatus.UNAUTHORIZED,
        "Send one of the API keys: `Authorization: Bearer <key>`.",
        headers={"WWW-Authenticate": challenge},
    )


def forbidden(scope: Scope) -> Response:
    """403 that names the scope that is missing."""
    challenge = f'Bearer realm="darkroom", error="insufficient_scope", scope="{scope}"'
    detail = f"This API key does not allow it: it lacks the scope {scope}."
    return problem(HTTPStatus.FORBIDDEN, detail, headers={"WWW-Authenticate": challenge}, required_scope=scope.value)
