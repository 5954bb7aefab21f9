"""Who may use `/v1`: bearers of one of the configured keys, and nobody while none is configured."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from flask import Response

from .problems import problem


@dataclass(frozen=True)
class Keys:
    """The API keys, kept as digests."""

    digests: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, keys: Sequence[str]) -> Keys:
        """From the keys themselves."""
        return cls(tuple(hashlib.sha256(key.encode()).digest() for key in keys))

    def owner(self, authorization: str) -> str | None:
        """The stable name of the key in an `Authorization` header, or None; every key is compared, whichever matches."""
        scheme, _, given = authorization.partition(" ")
        # WSGI hands header bytes over as latin-1.
        digest = hashlib.sha256(given.strip().encode("latin-1", "replace")).digest()
        known = [hmac.compare_digest(digest, one) for one in self.digests]
        return digest.hex()[:12] if scheme.lower() == "bearer" and any(known) else None


def unauthorized(*, given: bool) -> Response:
    """The 401; `given` tells whether there was a credential at all (RFC 6750)."""
    challenge = 'Bearer realm="darkroom"' + (', error="invalid_token"' if given else "")
    return problem(
        HTTPStatus.UNAUTHORIZED,
        "Send `Authorization: Bearer <key>` with one of the keys in DARKROOM_API_KEYS.",
        headers={"WWW-Authenticate": challenge},
    )
