"""Images at rest: an S3 bucket, or a folder on one machine. `open_storage` chooses by the URL.

An object is written once: whoever comes second adopts what stands there. Keys are the same in both storages. Foreign
exceptions (botocore's, the operating system's) never leave them; StorageError does.

Everything here blocks; call it on a thread. boto3 is imported with the first use of a bucket.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from ..errors import SettingsError, StorageError
from .folder import FolderStorage, sign_path, verify_path
from .objects import KEY, Listed, StoredObject, Uploaded, UploadRequest, checked_key
from .s3 import S3Access, S3Storage, read_upload

__all__ = [
    "FolderStorage",
    "Listed",
    "S3Access",
    "S3Storage",
    "Storage",
    "StoredObject",
    "UploadRequest",
    "Uploaded",
    "artifact_key",
    "artifact_metadata",
    "open_storage",
    "read_upload",
    "rehearse",
    "sign_path",
    "staged_key",
    "verify_path",
]

#: What a provider makes is marked as made by a model, in the words of IPTC's vocabulary.
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

#: What buckets are called: S3's rules, and the underscores of older buckets and other stores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


class Storage(Protocol):
    """Where images are kept. Every method raises StorageError, and InvalidRequest for a key of the wrong shape."""

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        """Write once. Return None when it was written, or what already stands there and is to be adopted."""

    def upload_request(
        self, key: str, *, content_type: str, metadata: Mapping[str, str], sha256: str
    ) -> UploadRequest | None:
        """Return the request that does what `put` does, for a transport of your own; None where there is none (folder).

        `sha256` is the content's, 64 hex digits; the store checks it. Give the answer to `read_upload`.
        """

    def get(self, key: str) -> bytes:
        """Return the content. Raises StorageError, not retryable, when nothing stands there."""

    def head(self, key: str) -> StoredObject | None:
        """Return what stands there, or None."""

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        """Return the objects whose keys begin with `prefix`, by key."""

    def renew(self, key: str) -> bool:
        """Let an object's age begin anew, before it is adopted by a longer-lived job; False when it is gone."""

    def delete(self, key: str) -> None:
        """Delete; nothing happens when nothing stands there."""

    def url(self, key: str, expires_seconds: int = 3600) -> str:
        """Return a URL that serves the object for 1 to 604,800 seconds, signed at this moment; a secret."""

    def check(self) -> None:
        """Raise StorageError, with the fix, unless the storage answers. Cheap: one request."""

    def ensure_bucket(self) -> None:
        """Create the bucket or the folder unless it is there."""

    def close(self) -> None:
        """Close idle connections."""


def open_storage(
    url: str, *, public_url: str | None, secret_keys: Sequence[str], access: S3Access | None = None
) -> Storage:
    """Return the storage at `s3://bucket/prefix` or `file:///folder`; nothing is touched or connected yet.

    `public_url` (where `/files` is served) and `secret_keys` (the first signs) make a folder's URLs.
    Raises SettingsError for any other URL.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return FolderStorage(Path(unquote(rest)), public_url=public_url, secret_keys=secret_keys)
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme == "s3" and _BUCKET.fullmatch(bucket) and (not prefix or KEY.fullmatch(prefix)):
        return S3Storage(bucket, prefix, access or S3Access())
    raise SettingsError("DARKROOM_STORAGE_URL", "is neither s3://bucket/prefix nor file:///folder", "s3://pictures")


def rehearse(storage: Storage) -> None:
    """Write a probe twice, read it, delete it: raises StorageError unless the storage keeps what was written first."""
    key = f"rehearsal/{uuid.uuid4().hex}"
    try:
        storage.put(key, b"first", content_type="text/plain", metadata={})
        adopted = storage.put(key, b"second", content_type="text/plain", metadata={})
        if adopted is None or storage.get(key) != b"first":
            raise StorageError(
                "the storage overwrites objects: it ignores If-None-Match; use one that has conditional writes",
                retryable=False,
            )
    finally:
        storage.delete(key)


# Names


def artifact_key(job_id: str, attempt: int, index: int, extension: str) -> str:
    """Return where an artifact lies; the same image of the same attempt always gets the same key."""
    return checked_key(f"jobs/{job_id}/{attempt}/{index}.{extension}")


def staged_key(sha256: str, extension: str) -> str:
    """Return where an input lies; the same content always gets the same key."""
    return checked_key(f"staged/{sha256[:2]}/{sha256}.{extension}")


def artifact_metadata(job_id: str, operation: str, provider: str, attempt: int, sha256: str) -> dict[str, str]:
    """Return what is kept beside an artifact: where it is from, that a model made it, and its SHA-256."""
    return {
        "sha256": sha256,
        "job-id": job_id,
        "operation": operation,
        "provider": provider,
        "attempt": str(attempt),
        "digital-source-type": DIGITAL_SOURCE_TYPE,
    }
