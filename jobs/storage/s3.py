"""Objects in an S3 bucket, by boto3, which is imported with the first use of a bucket.

A StorageError of this module names the object, the reason and what to do, never a signature or a secret.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidRequest, StorageError
from .objects import (
    Listed,
    StoredObject,
    Uploaded,
    UploadRequest,
    checked_expiry,
    checked_key,
    checked_metadata,
    checked_prefix,
    write_once,
)
from .s3_connection import Connection, S3Access
from .s3_errors import code_of, reason, response_reason, status_of

#: what a store answers to a conditional write that did not happen
_CONDITIONAL = {412: Uploaded.EXISTS, 409: Uploaded.AGAIN}
_ERROR_CODE = re.compile(rb"<Code>\s*(\w{1,64})\s*</Code>", re.ASCII)


class S3Storage:
    """Objects in a bucket; thread-safe. Works with any store that has Signature Version 4 and conditional writes."""

    def __init__(self, bucket: str, prefix: str = "", access: S3Access | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._access = access or S3Access()
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def __repr__(self) -> str:
        return f"S3Storage('s3://{self.bucket}/{self.prefix}')"

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        from botocore.exceptions import ClientError

        target = self._target(key)
        described = {"ContentType": content_type, "Metadata": checked_metadata(metadata)}

        def write() -> Uploaded:
            with self._calling("put", key) as s3:
                try:
                    s3.client.put_object(**target, **described, Body=content, IfNoneMatch="*")
                except ClientError as error:
                    if (end := _CONDITIONAL.get(status_of(error))) is None:
                        raise
                    return end
                return Uploaded.STORED

        return write_once(write, lambda: self.head(key), self._name(key))

    def upload_request(
        self, key: str, *, content_type: str, metadata: Mapping[str, str], sha256: str
    ) -> UploadRequest | None:
        headers = {"Content-Type": content_type, "If-None-Match": "*", "X-Amz-Content-SHA256": sha256}
        headers |= {f"x-amz-meta-{name}": value for name, value in checked_metadata(metadata).items()}
        with self._calling("put", key) as s3:
            url = s3.base_url + self._target(key)["Key"]
            return UploadRequest("PUT", url, s3.signed_headers("PUT", url, headers))

    def get(self, key: str) -> bytes:
        with self._calling("get", key) as s3:
            content: bytes = s3.client.get_object(**self._target(key))["Body"].read()
            return content

    def head(self, key: str) -> StoredObject | None:
        with self._calling("head", key) as s3:
            found = _unless_missing(lambda: s3.client.head_object(**self._target(key)))
        if found is None:
            return None
        metadata = {name.lower(): value for name, value in found["Metadata"].items()}
        content_type = found.get("ContentType", "application/octet-stream")
        return StoredObject(key, found["ContentLength"], found["LastModified"], content_type, metadata)

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        with self._calling("list", checked_prefix(prefix)) as s3:
            pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            return tuple(
                Listed(entry["Key"].removeprefix(self.prefix), entry["Size"], entry["LastModified"])
                for page in pages
                for entry in page.get("Contents", ())
            )

    def renew(self, key: str) -> bool:
        existing = self.head(key)
        if existing is None:
            return False
        # Copying an object onto itself renews its age; S3 accepts that only with its metadata given again.
        described = {"ContentType": existing.content_type, "Metadata": dict(existing.metadata)}
        target = self._target(key)
        with self._calling("renew", key) as s3:
            copied = _unless_missing(
                lambda: s3.client.copy_object(**target, **described, CopySource=target, MetadataDirective="REPLACE")
            )
        return copied is not None

    def delete(self, key: str) -> None:
        with self._calling("delete", key) as s3:
            s3.client.delete_object(**self._target(key))

    def url(self, key: str, expires_seconds: int = 3600) -> str:
        seconds = checked_expiry(expires_seconds)
        with self._calling("sign", key) as s3:
            signed: str = s3.client.generate_presigned_url("get_object", self._target(key), ExpiresIn=seconds)
            return signed

    def check(self) -> None:
        with self._calling("check") as s3:
            s3.client.head_bucket(Bucket=self.bucket)

    def create(self) -> bool:
        from botocore.exceptions import ClientError

        with self._calling("create") as s3:
            if _unless_missing(lambda: s3.client.head_bucket(Bucket=self.bucket)) is not None:
                return False
            # us-east-1 is the default, and refused where it is named.
            region = {"CreateBucketConfiguration": {"LocationConstraint": s3.region}}
            try:
                s3.client.create_bucket(Bucket=self.bucket, **({} if s3.region == "us-east-1" else region))
            except ClientError as error:
                if code_of(error) != "BucketAlreadyOwnedByYou":
                    raise
                return False
        return True

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.client.close()

    def _target(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + checked_key(key)}

    def _name(self, key: str = "") -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}".rstrip("/")

    @contextmanager
    def _calling(self, action: str, key: str = "") -> Iterator[Connection]:
        """Lend the connection for one call. All botocore exceptions are translated here."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            with self._lock:
                if self._connection is None:
                    self._connection = Connection.open(self.bucket, self._access)
                connection = self._connection
            yield connection
        except InvalidRequest:
            raise
        except (BotoCoreError, ClientError, ResponseParserError, OSError, ValueError) as error:
            why, retryable = reason(error)
            raise StorageError(f"{action} {self._name(key)}: {why}", retryable=retryable) from error


def read_upload(status: int, body: bytes = b"", *, key: str) -> Uploaded:
    """How an `UploadRequest` for `key` ended: 2xx stored, 412 exists, 409 again.

    `body` is the response's, as much of it as was read. Raises StorageError for every other status.
    """
    if 200 <= status < 300:
        return Uploaded.STORED
    if status in _CONDITIONAL:
        return _CONDITIONAL[status]
    code = _ERROR_CODE.search(body[:4096])
    why, retryable = response_reason(status, code[1].decode() if code else "")
    raise StorageError(f"put {key}: {why}", retryable=retryable)


def _unless_missing(call: Callable[[], Any]) -> Any:
    """The response of the call, or None for a 404."""
    from botocore.exceptions import ClientError

    try:
        return call()
    except ClientError as error:
        if status_of(error) != 404 or code_of(error) == "NoSuchBucket":
            raise
        return None
