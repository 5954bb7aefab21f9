"""What a bucket and a folder have in common: keys, descriptions of objects, and writing an object once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ..errors import FieldError, InvalidRequest, StorageError

#: the longest life of a presigned URL in seconds: seven days, by Signature Version 4
MAX_EXPIRES_SECONDS = 7 * 86400
#: why a read of a missing object failed, and whether the same call may work later
NO_OBJECT = ("the object does not exist", False)

#: a key: words between slashes, none of which begins with a dot; safe as a path, and in a URL without escapes
KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}/){0,7}[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_METADATA_NAME = re.compile(r"[a-z0-9-]{1,64}")
_METADATA_VALUE = re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?")


@dataclass(frozen=True)
class Listed:
    """An object as a listing shows it."""

    key: str
    #: bytes
    size: int
    #: when it was written or renewed, aware
    modified_at: datetime


@dataclass(frozen=True)
class StoredObject(Listed):
    """An object in the storage."""

    content_type: str
    metadata: Mapping[str, str]

    @property
    def sha256(self) -> str | None:
        """The SHA-256 that was recorded when it was written; None for an object that Darkroom did not write."""
        return self.metadata.get("sha256")


@dataclass(frozen=True)
class UploadRequest:
    """One signed HTTP request that stores an object: send the content as its body, with its Content-Length.

    The headers hold the signature, valid for 15 minutes; they and the URL go out byte-exact.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)


class Uploaded(StrEnum):
    """How a write ended."""

    STORED = "stored"  #: we wrote the object
    EXISTS = "exists"  #: another writer was first: use the object that `head` returns
    AGAIN = "again"  #: two writers collided, and perhaps neither succeeded: write again


# Names


def checked_key(key: str) -> str:
    """The key, unless it is malformed. Raises InvalidRequest."""
    if not KEY.fullmatch(key):
        raise InvalidRequest(
            FieldError("key", f"{key[:80]!r} should be letters, digits, '.', '_' and '-', between slashes")
        )
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix, unless no key can begin with it; it may end in a slash. Raises InvalidRequest."""
    return prefix and checked_key(prefix.removesuffix("/")) + "/" * prefix.endswith("/")


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata, unless HTTP headers cannot carry it. Raises InvalidRequest."""
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name) or not _METADATA_VALUE.fullmatch(value):
            raise InvalidRequest(
                FieldError("metadata", f"{name[:80]!r} should be lower case, its value 1 to 512 ASCII characters")
            )
    return dict(metadata)


def checked_expiry(expires_seconds: int) -> int:
    """The life of a URL in seconds, unless no store can sign it. Raises InvalidRequest."""
    if not 1 <= expires_seconds <= MAX_EXPIRES_SECONDS:
        raise InvalidRequest(
            FieldError("expires_seconds", f"should be 1 to {MAX_EXPIRES_SECONDS}, not {expires_seconds}")
        )
    return expires_seconds


# Writing once


#: the pause before each try, in seconds; two writers of one key collide for milliseconds
_PAUSES_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.4)


def write_once(
    write: Callable[[], Uploaded], head: Callable[[], StoredObject | None], where: str
) -> StoredObject | None:
    """Write until there is an object: None when we wrote it, or the existing one. An object may vanish between the two calls."""
    for pause in _PAUSES_SECONDS:
        time.sleep(pause)
        end = write()
        if end is Uploaded.STORED:
            return None
        if end is Uploaded.EXISTS and (existing := head()):
            return existing
    raise StorageError(f"{where} was not written: other writers kept interfering; try again")
