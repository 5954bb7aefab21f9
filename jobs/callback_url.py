"""Signs and reads the token that names a job and an attempt in a callback URL.

A token is `<job id>.<attempt>.<signature>`, the signature an HMAC-SHA256 over provider, job and attempt in base64url. The
first key signs, all verify, so keys can be rotated. It dies with the job: a forgotten job answers 410.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence

from .errors import InvalidToken

_TOKEN = re.compile(r"([0-9a-f]{32})\.([1-9][0-9]{0,8})\.([A-Za-z0-9_-]{43})")


def sign(provider: str, job_id: str, attempt: int, keys: Sequence[str]) -> str:
    """The token for one attempt of a job."""
    return f"{job_id}.{attempt}.{_signature(provider, job_id, str(attempt), keys[0])}"


def verify(provider: str, token: str, keys: Sequence[str]) -> tuple[str, int]:
    """The job id and the attempt that the token names. Raises InvalidToken, in the same time for every wrong one."""
    match = _TOKEN.fullmatch(token)
    job_id, attempt, given = match.groups() if match else ("0" * 32, "1", "")
    signed = [hmac.compare_digest(_signature(provider, job_id, attempt, key), given) for key in keys]
    if match is None or not any(signed):
        raise InvalidToken("the callback's token was not signed by any of our keys")
    return job_id, int(attempt)


def callback_url(base: str, provider: str, job_id: str, attempt: int, keys: Sequence[str]) -> str:
    """Where a provider calls back for one attempt; `base` ends in `/webhooks`. A secret."""
    return f"{base}/{provider}/{sign(provider, job_id, attempt, keys)}"


def _signature(provider: str, job_id: str, attempt: str, key: str) -> str:
    signed = hmac.digest(key.encode(), f"callback\n{provider}\n{job_id}\n{attempt}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
