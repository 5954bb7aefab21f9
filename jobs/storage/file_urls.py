"""The signed paths under which the receiver serves the files of a folder storage (`/files/<key>`)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

from ..errors import SettingsError

_EPOCH = re.compile(r"[0-9]{1,12}")


def sign_path(key: str, *, expires: int, secret_keys: Sequence[str]) -> str:
    """The query that opens `/files/<key>` until `expires`, in seconds since 1970. Raises SettingsError without a secret."""
    if not secret_keys:
        raise SettingsError("DARKROOM_SECRET_KEYS", "is not set, so no file URL can be signed", "a-long-random-string")
    return f"expires={expires}&signature={_signature(key, str(expires), secret_keys[0])}"


def verify_path(key: str, *, expires: str, signature: str, secret_keys: Sequence[str], now: float) -> bool:
    """Whether `expires` and `signature`, as they came in the query, open `key` at `now`, in seconds since 1970."""
    if not _EPOCH.fullmatch(expires) or int(expires) < now:
        return False
    given = signature.encode()
    return any(hmac.compare_digest(_signature(key, expires, secret).encode(), given) for secret in secret_keys)


def _signature(key: str, expires: str, secret: str) -> str:
    # The first word keeps these signatures apart from all others that the same key makes.
    return hmac.new(secret.encode(), f"darkroom-file\n{key}\n{expires}".encode(), hashlib.sha256).hexdigest()
