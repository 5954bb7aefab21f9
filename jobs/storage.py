"""Images at rest: an S3 bucket, or a folder on one machine. `open_storage` chooses by the URL.

An object is written once: whoever comes second adopts what stands there. Keys are the same in both storages; the
bucket's prefix is added here. Foreign exceptions (botocore's, the operating system's) end here: they become
`StorageError`, whose message names the object, the reason and the fix, never a signature or a secret.

Everything here blocks; call it on a thread. boto3 is imported with the first use of a bucket.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import mimetypes
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from .errors import InvalidRequest, SettingsError, StorageError

#: What a provider makes is marked as made by a model, in the words of IPTC's vocabulary.
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

#: Longest life of a presigned URL in seconds: seven days, by Signature Version 4.
MAX_EXPIRES_SECONDS = 7 * 86400


@dataclass(frozen=True)
class Listed:
    """What a listing tells of an object."""

    key: str
    #: bytes
    size: int
    #: when it was written or renewed, aware
    modified_at: datetime


@dataclass(frozen=True)
class StoredObject(Listed):
    """What stands in storage under a key."""

    content_type: str
    metadata: Mapping[str, str]

    @property
    def sha256(self) -> str | None:
        """The SHA-256 that was noted when it was written; None for an object that somebody else put there."""
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

    STORED = "stored"  #: it stands there, and we wrote it
    EXISTS = "exists"  #: somebody was first: adopt what `head` returns
    AGAIN = "again"  #: two writers met, and neither may have won: write again


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
    if scheme == "s3" and _BUCKET.fullmatch(bucket) and (not prefix or _KEY.fullmatch(prefix)):
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
    return _checked_key(f"jobs/{job_id}/{attempt}/{index}.{extension}")


def staged_key(sha256: str, extension: str) -> str:
    """Return where an input lies; the same content always gets the same key."""
    return _checked_key(f"staged/{sha256[:2]}/{sha256}.{extension}")


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


#: What buckets are called: S3's rules, and the underscores of older buckets and other stores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
#: Words between slashes, none of which begins with a dot: safe as a path and in a URL without escapes.
_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}/){0,7}[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_METADATA_NAME = re.compile(r"[a-z0-9-]{1,64}")
_METADATA_VALUE = re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?")


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidRequest("key", repr(key[:80]), "letters, digits, '.', '_' and '-', between slashes")
    return key


def _checked_prefix(prefix: str) -> str:
    return prefix and _checked_key(prefix.removesuffix("/")) + "/" * prefix.endswith("/")


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name) or not _METADATA_VALUE.fullmatch(value):
            raise InvalidRequest("metadata", repr(name[:80]), "lower-case names, values of 1 to 512 ASCII characters")
    return dict(metadata)


def _checked_expiry(expires_seconds: int) -> int:
    if not 1 <= expires_seconds <= MAX_EXPIRES_SECONDS:
        raise InvalidRequest("expires_seconds", str(expires_seconds), f"1 to {MAX_EXPIRES_SECONDS}")
    return expires_seconds


# Signed paths of a folder


def sign_path(key: str, *, expires: int, secret_keys: Sequence[str]) -> str:
    """Return the query that opens `/files/<key>` until the epoch second `expires`. SettingsError without a secret."""
    if not secret_keys:
        raise SettingsError("DARKROOM_SECRET_KEYS", "is not set, so no file URL can be signed", "a-long-random-string")
    return f"expires={expires}&signature={_signature(key, str(expires), secret_keys[0])}"


def verify_path(key: str, *, expires: str, signature: str, secret_keys: Sequence[str], now: float) -> bool:
    """Tell whether `expires` and `signature`, as they came in the query, open `key` at the epoch second `now`."""
    if not _EPOCH.fullmatch(expires) or int(expires) < now:
        return False
    given = signature.encode()
    return any(hmac.compare_digest(_signature(key, expires, secret).encode(), given) for secret in secret_keys)


_EPOCH = re.compile(r"[0-9]{1,12}")


def _signature(key: str, expires: str, secret: str) -> str:
    # The first word keeps these signatures apart from whatever else the same key signs.
    return hmac.new(secret.encode(), f"darkroom-file\n{key}\n{expires}".encode(), hashlib.sha256).hexdigest()


# Writing once


#: Before each try to write, in seconds; two writers of one key meet for milliseconds.
_PAUSES_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.4)


def _write_once(
    write: Callable[[], Uploaded], head: Callable[[], StoredObject | None], where: str
) -> StoredObject | None:
    """Write until it stands there, ours (None) or somebody else's. An object may vanish between the two calls."""
    for pause in _PAUSES_SECONDS:
        time.sleep(pause)
        end = write()
        if end is Uploaded.STORED:
            return None
        if end is Uploaded.EXISTS and (standing := head()):
            return standing
    raise StorageError(f"{where} was not written: other writers kept coming between; try again")


# S3


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
        told = {"ContentType": content_type, "Metadata": _checked_metadata(metadata)}

        def write() -> Uploaded:
            with self._border("put", key) as s3:
                return _conditional(lambda: s3.client.put_object(**target, **told, Body=content, IfNoneMatch="*"))

        return _write_once(write, lambda: self.head(key), self._name(key))

    def upload_request(
        self, key: str, *, content_type: str, metadata: Mapping[str, str], sha256: str
    ) -> UploadRequest | None:
        headers = {"Content-Type": content_type, "If-None-Match": "*", "X-Amz-Content-SHA256": sha256}
        headers |= {f"x-amz-meta-{name}": value for name, value in _checked_metadata(metadata).items()}
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
        with self._border("list", _checked_prefix(prefix)) as s3:
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
        seconds = _checked_expiry(expires_seconds)
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
        return {"Bucket": self.bucket, "Key": self.prefix + _checked_key(key)}

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
_NO_OBJECT = ("there is no such object", False)
_DENIED = (
    "access denied; the key needs s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and s3:DeleteObject in it",
    False,
)
_BAD_KEY = (f"the store does not know this access key or its secret; {_SET_CREDENTIALS}", False)
_BAD_REGION = ("the bucket lies in another region; set AWS_DEFAULT_REGION", False)

#: The store's words, or the bare status, that have a fix.
_ANSWERS = {
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchKey": _NO_OBJECT,
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


# Folder


class FolderStorage:
    """Objects as files in a folder, for one machine; safe between threads and processes.

    A file appears whole and synced, or not at all. What it cannot say itself lies in `.metadata/<key>.json`, which is
    written after it: a crash between the two leaves a file that is described from its name and its bytes. Unlike in a
    bucket, no key can be another one's folder.
    """

    def __init__(self, root: Path, *, public_url: str | None = None, secret_keys: Sequence[str] = ()) -> None:
        self.root = root
        self._public_url = (public_url or "").rstrip("/")
        self._secret_keys = tuple(secret_keys)

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    def put(self, key: str, content: bytes, *, content_type: str, metadata: Mapping[str, str]) -> StoredObject | None:
        path, sidecar = self._path(key), self._sidecar(key)
        told = json.dumps({"content_type": content_type, "metadata": _checked_metadata(metadata)}).encode()

        def write() -> Uploaded:
            with _disk("put", path):
                end = _link(path, content)
                if end is Uploaded.STORED or (not sidecar.exists() and _same(path, content)):
                    _replace(sidecar, told)
                return end

        return _write_once(write, lambda: self.head(key), str(path))

    def upload_request(self, key: str, **_told: object) -> None:
        _checked_key(key)

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with _disk("get", path):
            return path.read_bytes()

    def head(self, key: str) -> StoredObject | None:
        path = self._path(key)
        with _disk("head", path):
            try:
                found = path.stat()
                content_type, metadata = self._told(key, path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
        return StoredObject(key, found.st_size, _aware(found.st_mtime), content_type, metadata)

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def list(self, prefix: str = "") -> tuple[Listed, ...]:
        folder = self.root / _checked_prefix(prefix).rpartition("/")[0]
        with _disk("list", folder):
            listed = (self._listed(path) for path in _files(folder))
            return tuple(sorted((one for one in listed if one and one.key.startswith(prefix)), key=lambda one: one.key))

    def renew(self, key: str) -> bool:
        path = self._path(key)
        with _disk("renew", path):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def delete(self, key: str) -> None:
        path, sidecar = self._path(key), self._sidecar(key)
        with _disk("delete", path):
            # In this order, a crash leaves no description that a later object of this key would inherit.
            sidecar.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def url(self, key: str, expires_seconds: int = 3600) -> str:
        path, seconds = self._path(key), _checked_expiry(expires_seconds)
        if not self._public_url:
            return path.absolute().as_uri()
        query = sign_path(key, expires=int(time.time()) + seconds, secret_keys=self._secret_keys)
        return f"{self._public_url}/files/{key}?{query}"

    def check(self) -> None:
        """Raise StorageError unless the folder can be written; it is made when it is missing."""
        self.ensure_bucket()
        probe = self.root / f".{uuid.uuid4().hex}.tmp"
        with _disk("check", self.root):
            probe.touch()
            probe.unlink()

    def ensure_bucket(self) -> None:
        with _disk("create", self.root):
            _make_folder(self.root)

    def close(self) -> None:
        """Nothing is held."""

    def _path(self, key: str) -> Path:
        return self.root / _checked_key(key)

    def _sidecar(self, key: str) -> Path:
        return self.root / ".metadata" / f"{key}.json"

    def _told(self, key: str, path: Path) -> tuple[str, dict[str, str]]:
        """Return the content type and the metadata, from the sidecar or else from the file."""
        try:
            told = json.loads(self._sidecar(key).read_bytes())
            return told["content_type"], told["metadata"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            return guessed, {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def _listed(self, path: Path) -> Listed | None:
        try:
            found = path.stat()
        except FileNotFoundError:  # deleted while we listed
            return None
        return Listed(path.relative_to(self.root).as_posix(), found.st_size, _aware(found.st_mtime))


def _aware(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)


def _link(path: Path, content: bytes) -> Uploaded:
    """Let a file appear under its name with all its content, unless there is one."""
    _make_folder(path.parent)
    with _synced(path, content) as finished:
        try:
            os.link(finished, path)
        except FileExistsError:
            return Uploaded.EXISTS
        finally:
            _sync_folder(path.parent)
    return Uploaded.STORED


def _replace(path: Path, content: bytes) -> None:
    """Let a file appear under its name with all its content, whether or not there is one."""
    _make_folder(path.parent)
    with _synced(path, content) as finished:
        finished.replace(path)
        _sync_folder(path.parent)


@contextmanager
def _synced(path: Path, content: bytes) -> Iterator[Path]:
    """Lend a file beside `path` whose content is on the disk. Its name begins with a dot, so it is never listed."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it, each of them on the disk."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below; none when the folder is not there."""
    for parent, folders, names in os.walk(folder, onerror=_unless_gone):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _disk(action: str, path: Path) -> Iterator[None]:
    """What the operating system raises becomes ours. The one place that catches it."""
    try:
        yield
    except OSError as error:
        reason, retryable = _ERRNOS.get(
            error.errno or 0, (f"the system says {_errno_name(error)}; see to the disk", True)
        )
        raise StorageError(f"{action} {path}: {reason}", retryable=retryable) from error


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


_FULL = ("the disk, or this user's quota, is full; free some space", True)
_READ_ONLY = ("the folder cannot be used by this user; see to its owner, its mode and its mount", False)
_NO_FOLDER = ("part of the path is no folder; correct DARKROOM_STORAGE_URL", False)
_NO_LINKS = ("the file system has no hard links, so nothing can be written once; choose another folder", False)

#: The system's reasons that have a fix.
_ERRNOS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: ("the file is larger than this process may write; raise its limit (ulimit -f)", False),
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.ENOENT: _NO_OBJECT,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EISDIR: _NO_FOLDER,
    errno.EOPNOTSUPP: _NO_LINKS,
    errno.ENOTSUP: _NO_LINKS,
    errno.EMFILE: ("too many open files; raise the limit (ulimit -n)", True),
    errno.ENAMETOOLONG: ("the path is too long; choose a shorter folder", False),
}
