"""Images at rest: an S3 bucket, or a folder on one machine. `open_storage` chooses by the URL.

An object is written once: a second writer of the same key uses the existing object. Keys are the same in both storages.
Both raise StorageError, never an exception of botocore or of the operating system.

All calls block; make them on a thread. boto3 is imported with the first use of a bucket.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from ..errors import SettingsError, StorageError
from .file_urls import sign_path, verify_path
from .folder import FolderStorage
from .objects import KEY, Listed, StoredObject, Uploaded, UploadRequest, checked_key
from .s3 import S3Storage, read_upload
from .s3_connection import S3Access

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
    "verify_path",
]

#: marks an artifact as made by a model, in the vocabulary of IPTC
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

#: a name of a bucket: S3's rules, and the underscores of older buckets and other stores
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


class Storage(Protocol):
    """Where images are stored. Every method raises StorageError, and InvalidRequest for a malformed key."""

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        """Write an object once. Returns None when it was written, or the existing object, which is to be used instead."""

    def upload_request(
        self, key: str, *, content_type: str, metadata: Mapping[str, str], sha256: str
    ) -> UploadRequest | None:
        """The request that does what `put` does, for a transport of your own; None for a folder.

        `sha256` is that of the content, 64 hex digits; the store checks it. Pass the response to `read_upload`.
        """

    def get(self, key: str) -> bytes:
        """The content of an object. Raises StorageError, not retryable, when it does not exist."""

    def head(self, key: str) -> StoredObject | None:
        """The description of an object, or None when it does not exist."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        """The objects whose keys begin with `prefix`, in the order of their keys."""

    def renew(self, key: str) -> bool:
        """Reset the age of an object that another job is to use; False when it does not exist."""

    def delete(self, key: str) -> None:
        """Delete an object; nothing happens when it does not exist."""

    def url(self, key: str, expires_seconds: int = 3600) -> str:
        """A URL that serves the object for 1 to 604,800 seconds, signed at this moment; a secret."""

    def check(self) -> None:
        """Raise StorageError, which says what to do, unless the storage answers. Cheap: one request."""

    def create(self) -> bool:
        """Create the bucket or the folder; False when it existed before."""

    def close(self) -> None:
        """Close idle connections."""


def open_storage(
    url: str, *, public_url: str | None, secret_keys: Sequence[str], access: S3Access | None = None
) -> Storage:
    """The storage at `s3://bucket/prefix` or `file:///folder`; nothing is connected or created yet.

    The URLs of a folder's objects are made of `public_url`, where the receiver serves `/files`, and signed with the first of
    `secret_keys`. Raises SettingsError for any other URL.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return FolderStorage(Path(unquote(rest)), public_url=public_url, secret_keys=secret_keys)
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme == "s3" and _BUCKET.fullmatch(bucket) and (not prefix or KEY.fullmatch(prefix)):
        return S3Storage(bucket, prefix, access or S3Access())
    raise SettingsError("DARKROOM_STORAGE_URL", "should be s3://bucket/prefix or file:///folder", "s3://images")


def rehearse(storage: Storage) -> None:
    """Write a probe twice, read it and delete it. Raises StorageError unless the storage keeps what was written first."""
    key = f"rehearsal/{uuid.uuid4().hex}"
    try:
        storage.put(key, b"first", content_type="text/plain", metadata={})
        existing = storage.put(key, b"second", content_type="text/plain", metadata={})
        if existing is None or storage.get(key) != b"first":
            raise StorageError(
                "the storage overwrites objects: it ignores If-None-Match; use a store that supports conditional writes",
                retryable=False,
            )
    finally:
        storage.delete(key)


# Names


def artifact_key(job_id: str, attempt: int, index: int, extension: str) -> str:
    """The key of an artifact; the same image of the same attempt always has the same key."""
    return checked_key(f"jobs/{job_id}/{attempt}/{index}.{extension}")


def artifact_metadata(job_id: str, operation: str, provider: str, attempt: int, sha256: str) -> dict[str, str]:
    """What is stored with an artifact: its origin, its SHA-256, and that a model made it."""
    return {
        "sha256": sha256,
        "job-id": job_id,
        "operation": operation,
        "provider": provider,
        "attempt": str(attempt),
        "digital-source-type": DIGITAL_SOURCE_TYPE,
    }
