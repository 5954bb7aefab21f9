"""Objects in an S3 bucket, by boto3, which is imported with the first use of a bucket.

The bucket's prefix is added here. What botocore raises ends here: it becomes a `StorageError`, whose message names the
object, the reason and the fix, never a signature or a secret.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..errors import InvalidRequest, StorageError
from .objects import (
    NO_OBJECT,
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


@dataclass(frozen=True)
class S3Access:
    """How to reach S3; None leaves it to boto3's own search: `AWS_*` variables, profile, instance role."""

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    #: how long one connect, and one silence of the store, may take
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    #: of one call, the first included; botocore retries what S3 documents as transient
    tries: int = 3


class S3Storage:
    """Objects in a bucket; thread-safe. Works with any store that has Signature Version 4 and conditional writes."""

    def __init__(self, bucket: str, prefix: str = "", access: S3Access | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._access = access or S3Access()
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def __repr__(self) -> str:
        return f"S3Storage('s3://{self.bucket}/{self.prefix}')"

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        target = self._target(key)
        told = {"ContentType": content_type, "Metadata": checked_metadata(metadata)}

        def write() -> Uploaded:
            with self._border("put", key) as s3:
                return _conditional(lambda: s3.client.put_object(**target, **told, Body=content, IfNoneMatch="*"))

        return write_once(write, lambda: self.head(key), self._name(key))

    def upload_request(
        self, key: str, *, content_type: str, metadata: Mapping[str, str], sha256: str
    ) -> UploadRequest | None:
        headers = {"Content-Type": content_type, "If-None-Match": "*", "X-Amz-Content-SHA256": sha256}
        headers |= {f"x-amz-meta-{name}": value for name, value in checked_metadata(metadata).items()}
        with self._border("put", key) as s3:
            url = s3.base_url + self._target(key)["Key"]
            return UploadRequest("PUT", url, _signed("PUT", url, headers, s3))

    def get(self, key: str) -> bytes:
        with self._border("get", key) as s3:
            content: bytes = s3.client.get_object(**self._target(key))["Body"].read()
            return content

    def head(self, key: str) -> StoredObject | None:
        with self._border("head", key) as s3:
            found = _unless_missing(lambda: s3.client.head_object(**self._target(key)))
        if found is None:
            return None
        metadata = {name.lower(): value for name, value in found["Metadata"].items()}
        content_type = found.get("ContentType", "application/octet-stream")
        return StoredObject(key, found["ContentLength"], found["LastModified"], content_type, metadata)

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        with self._border("list", checked_prefix(prefix)) as s3:
            pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
            return tuple(self._listed(entry) for page in pages for entry in page.get("Contents", ()))

    def renew(self, key: str) -> bool:
        standing = self.head(key)
        if standing is None:
            return False
        # S3 accepts a copy onto itself, which is what makes an object young, only with its metadata given anew.
        told = {"ContentType": standing.content_type, "Metadata": dict(standing.metadata)}
        target = self._target(key)
        with self._border("renew", key) as s3:
            copied = _unless_missing(
                lambda: s3.client.copy_object(**target, **told, CopySource=target, MetadataDirective="REPLACE")
            )
        return copied is not None

    def delete(self, key: str) -> None:
        with self._border("delete", key) as s3:
            s3.client.delete_object(**self._target(key))

    def url(self, key: str, expires_seconds: int = 3600) -> str:
        seconds = checked_expiry(expires_seconds)
        with self._border("sign", key) as s3:
            signed: str = s3.client.generate_presigned_url("get_object", self._target(key), ExpiresIn=seconds)
            return signed

    def check(self) -> None:
        with self._border("check") as s3:
            s3.client.head_bucket(Bucket=self.bucket)

    def ensure_bucket(self) -> None:
        with self._border("create") as s3:
            if _unless_missing(lambda: s3.client.head_bucket(Bucket=self.bucket)) is None:
                _unless_ours(lambda: s3.client.create_bucket(Bucket=self.bucket, **_placed(s3.region)))

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.client.close()

    def _target(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + checked_key(key)}

    def _name(self, key: str = "") -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}".rstrip("/")

    def _listed(self, entry: Mapping[str, Any]) -> Listed:
        return Listed(entry["Key"].removeprefix(self.prefix), entry["Size"], entry["LastModified"])

    @contextmanager
    def _border(self, action: str, key: str = "") -> Iterator[_Connection]:
        """Lend the connection; what botocore raises becomes ours. The one place that catches it."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            yield self._connected()
        except InvalidRequest:
            raise
        except (BotoCoreError, ClientError, ResponseParserError, OSError, ValueError) as error:
            reason, retryable = _s3_reason(error)
            raise StorageError(f"{action} {self._name(key)}: {reason}", retryable=retryable) from error

    def _connected(self) -> _Connection:
        with self._lock:
            if self._connection is None:
                self._connection = _connect(self.bucket, self._access)
            return self._connection


@dataclass(frozen=True)
class _Connection:
    """What boto3 knows: its client, where the bucket's objects lie, and who we are."""

    client: Any = field(repr=False)
    #: ends in a slash; the key follows
    base_url: str
    region: str
    session: Any = field(repr=False)


def _connect(bucket: str, access: S3Access) -> _Connection:
    import boto3
    from botocore.config import Config

    session = boto3.Session(access.access_key_id, access.secret_access_key)
    region = access.region or session.region_name or "us-east-1"
    config = Config(
        signature_version="s3v4",  # presigned URLs would be of version 2 otherwise
        request_checksum_calculation="when_required",  # the newer default breaks other stores than Amazon's
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": access.tries},
        max_pool_connections=32,
        connect_timeout=access.connect_timeout_seconds,
        read_timeout=access.read_timeout_seconds,
    )

    def client_of(config: Any) -> Any:
        return session.client("s3", endpoint_url=access.endpoint_url, region_name=region, config=config)

    client = client_of(config)
    if _AMAZON.search(client.meta.endpoint_url):
        # Amazon's presigned URLs lead to the bucket's own region only when this is said; others may not know the style.
        client = client_of(config.merge(Config(s3={"addressing_style": "virtual"})))
    return _Connection(client, _base_url(client, bucket), region, session)


_AMAZON = re.compile(r"\.amazonaws\.com(\.cn)?$")


def _base_url(client: Any, bucket: str) -> str:
    """Return the URL below which objects lie: botocore decides whether the bucket stands in the host or in the path."""
    probe = urlsplit(client.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"}))
    return f"{probe.scheme}://{probe.netloc}{probe.path.removesuffix('k')}"


def _signed(method: str, url: str, headers: Mapping[str, str], s3: _Connection) -> dict[str, str]:
    """Return the headers with Signature Version 4 among them, for a third of the CPU of a presigned URL.

    The plain signer escapes and normalizes paths twice, which changes nothing in ours; it takes the payload's hash from
    the header, where the S3 signer would need the payload.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.exceptions import NoCredentialsError

    credentials = s3.session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    request = AWSRequest(method, url, headers=headers)
    SigV4Auth(credentials.get_frozen_credentials(), "s3", s3.region).add_auth(request)
    return dict(request.headers.items())


def read_upload(status: int, body: bytes = b"", *, key: str) -> Uploaded:
    """Return how an `UploadRequest` for `key` ended: 2xx stored, 412 exists, 409 again.

    `body` is the answer's, as much of it as was read. Raises StorageError for every other status.
    """
    if 200 <= status < 300:
        return Uploaded.STORED
    if status in _CONDITIONAL:
        return _CONDITIONAL[status]
    code = _ERROR_CODE.search(body[:4096])
    reason, retryable = _answer_reason(status, code[1].decode() if code else "")
    raise StorageError(f"put {key}: {reason}", retryable=retryable)


_ERROR_CODE = re.compile(rb"<Code>\s*(\w{1,64})\s*</Code>", re.ASCII)

#: What a store answers to a conditional write that did not happen.
_CONDITIONAL = {412: Uploaded.EXISTS, 409: Uploaded.AGAIN}


def _conditional(call: Callable[[], Any]) -> Uploaded:
    from botocore.exceptions import ClientError

    try:
        call()
    except ClientError as error:
        if (end := _CONDITIONAL.get(_status(error))) is None:
            raise
        return end
    return Uploaded.STORED


def _unless_missing(call: Callable[[], Any]) -> Any:
    """Return the answer, or None for a 404."""
    from botocore.exceptions import ClientError

    try:
        return call()
    except ClientError as error:
        if _status(error) != 404 or _code(error) == "NoSuchBucket":
            raise
        return None


def _unless_ours(call: Callable[[], Any]) -> None:
    from botocore.exceptions import ClientError

    try:
        call()
    except ClientError as error:
        if _code(error) != "BucketAlreadyOwnedByYou":
            raise


def _placed(region: str) -> dict[str, Any]:
    """Return where a bucket is created; us-east-1 must not be said."""
    return {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _s3_reason(error: Exception) -> tuple[str, bool]:
    """Return why it failed, with the fix, and whether the same call may work later; never the foreign message."""
    from botocore import exceptions as foreign

    name = type(error).__name__
    if isinstance(error, foreign.ClientError):
        return _answer_reason(_status(error), _code(error))
    if isinstance(error, (foreign.NoCredentialsError, foreign.PartialCredentialsError)):
        return f"no credentials ({name}); {_SET_CREDENTIALS}", False
    if isinstance(error, (foreign.ConnectionError, foreign.HTTPClientError, foreign.IncompleteReadError, OSError)):
        return f"the store did not answer ({name}); is AWS_ENDPOINT_URL_S3 right, and is it up?", True
    if isinstance(error, (foreign.CredentialRetrievalError, foreign.MetadataRetrievalError)):
        return f"no credentials could be had ({name}); try again, or see to the instance's role", True
    if isinstance(error, ValueError):
        return f"boto3 cannot use this ({name}); see to AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION and the profile", False
    return f"boto3 could not do it ({name}); see to the AWS_* variables, and whether this is an S3 store", False


def _answer_reason(status: int, code: str) -> tuple[str, bool]:
    """Return what an answer means; `code` is the store's own word, and is missing in answers to HEAD."""
    if known := _ANSWERS.get(code) or _ANSWERS.get(str(status)):
        return known
    retryable = status >= 500 or status in {408, 409, 425, 429}
    word = code if _WORD.fullmatch(code) else "without a reason"
    return f"the store answered {status} {word}; {'try again later' if retryable else 'see to its own log'}", retryable


_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NO_BUCKET = ("the bucket does not exist; create it, or correct DARKROOM_STORAGE_URL", False)
_DENIED = (
    "access denied; the key needs s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and s3:DeleteObject in it",
    False,
)
_BAD_KEY = (f"the store does not know this access key or its secret; {_SET_CREDENTIALS}", False)
_BAD_REGION = ("the bucket lies in another region; set AWS_DEFAULT_REGION", False)

#: The store's words, or the bare status, that have a fix.
_ANSWERS = {
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchKey": NO_OBJECT,
    "404": ("there is no such bucket or object; correct DARKROOM_STORAGE_URL if it is the bucket", False),
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": _BAD_KEY,
    "SignatureDoesNotMatch": _BAD_KEY,
    "ExpiredToken": ("the temporary credentials ran out; renew AWS_SESSION_TOKEN", True),
    "RequestTimeTooSkewed": ("this host's clock is wrong by more than 15 minutes; set it", True),
    "AuthorizationHeaderMalformed": _BAD_REGION,
    "PermanentRedirect": _BAD_REGION,
    "301": _BAD_REGION,
    "307": (
        "the store redirects elsewhere, as new buckets do for some minutes; try again, or set AWS_DEFAULT_REGION",
        True,
    ),
    "BucketAlreadyExists": ("the bucket's name belongs to somebody else; choose another", False),
    "NotImplemented": ("the store does not know conditional writes (If-None-Match); use one that does", False),
}
