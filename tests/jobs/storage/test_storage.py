"""One conformance suite for both storages, then what is special about each."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from jobs import storage as storing
from jobs.errors import InvalidRequest, SettingsError, StorageError
from jobs.storage import FolderStorage, S3Access, S3Storage, Storage, Uploaded, UploadRequest, open_storage
from jobs.storage.folder_errors import translated_errors
from jobs.storage.s3_connection import Connection

KEY = "jobs/01JOB/1/0.png"
CONTENT = b"\x89PNG, or so" + bytes(range(256))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
METADATA = storing.artifact_metadata("01JOB", "deepmode.generate", "deepmode", 1, SHA256)
SECRETS = ("the-new-secret", "the-old-secret")


def access(endpoint_url: str, **changes: object) -> S3Access:
    known = {"region": "us-east-1", "access_key_id": "AKIATESTTEST", "secret_access_key": "wJalr-the-secret"}
    return S3Access(endpoint_url, **{**known, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def connected(s3_endpoint: str) -> Iterator[S3Storage]:
    storage = S3Storage("images", "some/where", access(s3_endpoint))
    yield storage
    storage.close()


@pytest.fixture
def bucket(s3_endpoint: str, connected: S3Storage) -> S3Storage:
    """A new bucket; the client is shared, because it takes longer to create than a test."""
    httpx.post(f"{s3_endpoint}/moto-api/reset")
    connected.create()
    return connected


@pytest.fixture
def folder(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "images", public_url="https://darkroom.example", secret_keys=SECRETS)


@pytest.fixture(params=[pytest.param("bucket", marks=pytest.mark.starts_shared), "folder"])
def storage(request: pytest.FixtureRequest) -> Storage:
    chosen: Storage = request.getfixturevalue(request.param)
    return chosen


def put(storage: Storage, key: str = KEY, content: bytes = CONTENT) -> storing.StoredObject | None:
    return storage.put(key, content, content_type="image/png", metadata=METADATA)


# Both storages


def test_a_stored_object_can_be_read_and_described(storage: Storage) -> None:
    assert put(storage) is None

    stored = storage.head(KEY)
    assert stored is not None
    assert (stored.key, stored.size, stored.content_type) == (KEY, len(CONTENT), "image/png")
    assert stored.metadata == METADATA
    assert stored.sha256 == SHA256
    assert abs(stored.modified_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert storage.get(KEY) == CONTENT
    assert storage.exists(KEY)


def test_an_object_is_written_once_and_the_second_writer_gets_the_existing_one(storage: Storage) -> None:
    put(storage)

    existing = storage.put(KEY, b"another image", content_type="image/gif", metadata={"sha256": "0" * 64})

    assert existing == storage.head(KEY)
    assert existing is not None
    assert (existing.size, existing.content_type, existing.sha256) == (len(CONTENT), "image/png", SHA256)
    assert storage.get(KEY) == CONTENT


def test_of_many_writers_at_once_exactly_one_wins(storage: Storage) -> None:
    contents = [bytes([number]) * 1000 for number in range(8)]

    def write(content: bytes) -> storing.StoredObject | None:
        metadata = {"sha256": hashlib.sha256(content).hexdigest()}
        return storage.put(KEY, content, content_type="image/png", metadata=metadata)

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(write, contents))

    winner = storage.get(KEY)
    assert [content for content, end in zip(contents, ends, strict=True) if end is None] == [winner]
    assert {end.sha256 for end in ends if end} == {hashlib.sha256(winner).hexdigest()}


def test_a_missing_object_is_none_or_an_error_that_is_not_retryable(storage: Storage) -> None:
    assert storage.head(KEY) is None
    assert not storage.exists(KEY)
    assert storage.renew(KEY) is False
    storage.delete(KEY)
    with pytest.raises(StorageError, match="object does not exist") as refused:
        storage.get(KEY)
    assert not refused.value.retryable


def test_a_deleted_object_can_be_written_again(storage: Storage) -> None:
    put(storage)

    storage.delete(KEY)

    assert not storage.exists(KEY)
    assert storage.list() == ()
    assert storage.put(KEY, b"new", content_type="image/gif", metadata={}) is None
    stored = storage.head(KEY)
    assert stored is not None
    assert (stored.content_type, dict(stored.metadata)) == ("image/gif", {})


def test_a_listing_has_the_keys_under_a_prefix_in_order(storage: Storage) -> None:
    keys = ["jobs/a/1/0.png", "jobs/a/1/1.png", "jobs/a/10/0.png", "jobs/ab/1/0.png", "staged/00/x.jpg"]
    for key in reversed(keys):
        put(storage, key)

    assert [one.key for one in storage.list()] == keys
    assert [one.key for one in storage.list("jobs/a/1/")] == keys[:2]
    assert [one.key for one in storage.list("jobs/a/1")] == keys[:3]
    assert [one.key for one in storage.list("jobs/a")] == keys[:4]
    assert storage.list("jobs/nobody/") == ()
    assert storage.list("staged/")[0].size == len(CONTENT)


def test_renewing_an_object_changes_nothing_but_its_age(storage: Storage) -> None:
    put(storage)
    before = storage.head(KEY)
    time.sleep(1.1 if isinstance(storage, S3Storage) else 0.02)  # S3 counts in whole seconds

    assert storage.renew(KEY)

    after = storage.head(KEY)
    assert before is not None
    assert after is not None
    assert after.modified_at > before.modified_at
    assert (after.metadata, after.content_type) == (before.metadata, before.content_type)
    assert storage.get(KEY) == CONTENT


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../up", "jobs/../../up", "jobs//x", "jobs/.hidden", ".metadata/x", "a/", "a b", "a\\b", "ä", "a\n",
     "a?b", "a%2e", "a/" * 9 + "a", "a" * 129],
)  # fmt: skip
def test_a_malformed_key_never_reaches_the_storage(storage: Storage, key: str) -> None:
    acts: list[Callable[[], object]] = [
        lambda: put(storage, key),
        lambda: storage.upload_request(key, content_type="image/png", metadata={}, sha256=SHA256),
        lambda: storage.get(key),
        lambda: storage.head(key),
        lambda: storage.exists(key),
        lambda: storage.renew(key),
        lambda: storage.delete(key),
        lambda: storage.url(key),
    ]
    for act in acts:
        with pytest.raises(InvalidRequest):
            act()


@pytest.mark.parametrize("prefix", ["..", "../", "/", "jobs//", ".metadata"])
def test_a_malformed_prefix_is_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(InvalidRequest):
        storage.list(prefix)


@pytest.mark.parametrize(
    "metadata", [{"Job": "x"}, {"a_b": "x"}, {"a": "ä"}, {"a": "x\r\nb: c"}, {"a": " x"}, {"a": ""}]
)
def test_metadata_that_a_header_cannot_carry_is_refused(storage: Storage, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        storage.put(KEY, CONTENT, content_type="image/png", metadata=metadata)


@pytest.mark.parametrize("seconds", [0, -1, 604_801])
def test_a_url_lives_for_a_second_to_a_week(storage: Storage, seconds: int) -> None:
    with pytest.raises(InvalidRequest):
        storage.url(KEY, seconds)


def test_a_healthy_storage_passes_its_check_and_its_rehearsal(storage: Storage) -> None:
    storage.create()
    assert not storage.create()
    storage.check()
    storing.rehearse(storage)

    assert storage.list() == ()


def test_a_storage_that_overwrites_fails_its_rehearsal(folder: FolderStorage) -> None:
    class Forgetful(FolderStorage):
        def put(self, key: str, content: bytes, **described: object) -> None:
            self.delete(key)
            super().put(key, content, content_type="text/plain", metadata={})

    with pytest.raises(StorageError, match="overwrites objects") as refused:
        storing.rehearse(Forgetful(folder.root))
    assert not refused.value.retryable


# S3


def test_a_presigned_url_serves_the_object_and_a_changed_url_does_not(bucket: S3Storage) -> None:
    put(bucket)

    url = bucket.url(KEY, 60)

    answer = httpx.get(url)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "image/png"
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["60"]


def send(upload: UploadRequest, content: bytes = CONTENT) -> httpx.Response:
    return httpx.request(upload.method, upload.url, headers=dict(upload.headers), content=content)


def upload_of(bucket: S3Storage, key: str = KEY, sha256: str = SHA256) -> UploadRequest:
    upload = bucket.upload_request(key, content_type="image/png", metadata=METADATA, sha256=sha256)
    assert upload is not None
    return upload


def test_an_upload_request_does_what_put_does(bucket: S3Storage) -> None:
    first = send(upload_of(bucket))
    assert storing.read_upload(first.status_code, first.content, key=KEY) is Uploaded.STORED

    stored = bucket.head(KEY)
    assert stored is not None
    assert (stored.metadata, stored.content_type, stored.size) == (METADATA, "image/png", len(CONTENT))

    second = send(upload_of(bucket), b"x" * len(CONTENT))
    assert storing.read_upload(second.status_code, second.content, key=KEY) is Uploaded.EXISTS
    assert bucket.get(KEY) == CONTENT


@pytest.fixture
def identity_checks(s3_endpoint: str) -> Iterator[S3Access]:
    """A user whose signatures moto verifies, as a real store does."""
    import boto3

    iam = boto3.Session("a", "b").client("iam", endpoint_url=s3_endpoint, region_name="us-east-1")
    iam.create_user(UserName="darkroom")
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    iam.put_user_policy(UserName="darkroom", PolicyName="all", PolicyDocument=policy)
    made = iam.create_access_key(UserName="darkroom")["AccessKey"]
    iam.close()
    httpx.post(f"{s3_endpoint}/moto-api/reset-auth", content=b"0")
    yield access(s3_endpoint, access_key_id=made["AccessKeyId"], secret_access_key=made["SecretAccessKey"])
    httpx.post(f"{s3_endpoint}/moto-api/reset-auth", content=b"inf")


def test_the_signature_of_an_upload_is_one_that_a_store_accepts(bucket: S3Storage, identity_checks: S3Access) -> None:
    known = S3Storage(bucket.bucket, "p", identity_checks)
    stranger = S3Storage(bucket.bucket, "p", access(identity_checks.endpoint_url or ""))
    liar = S3Storage(
        bucket.bucket, "p", access(identity_checks.endpoint_url or "", access_key_id=identity_checks.access_key_id)
    )

    assert send(upload_of(known)).status_code == 200
    for refused in (send(upload_of(stranger)), send(upload_of(liar))):
        with pytest.raises(StorageError, match="does not know this access key or its secret"):
            storing.read_upload(refused.status_code, refused.content, key=KEY)
    for storage in (stranger, liar):
        with pytest.raises(StorageError, match="access") as failed:
            put(storage)
        assert not failed.value.retryable
    for storage in (known, stranger, liar):
        storage.close()


def test_everything_that_matters_in_an_upload_is_signed(bucket: S3Storage) -> None:
    upload = upload_of(bucket)

    signed = upload.headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")

    assert {"host", "if-none-match", "content-type", "x-amz-content-sha256", "x-amz-meta-sha256"} <= set(signed)
    assert upload.headers["X-Amz-Content-SHA256"] == SHA256
    assert upload.headers["If-None-Match"] == "*"
    assert upload.url.endswith(f"/images/some/where/{KEY}")
    assert "Signature" not in repr(upload)


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        (None, "us-east-1", "https://images.s3.amazonaws.com/p/k.png"),
        (None, "eu-central-1", "https://images.s3.eu-central-1.amazonaws.com/p/k.png"),
        ("http://127.0.0.1:9000", "eu-central-1", "http://127.0.0.1:9000/images/p/k.png"),
        ("https://store.example/s3", "eu-central-1", "https://store.example/s3/images/p/k.png"),
    ],
)
def test_an_upload_goes_to_where_botocore_would_send_it(endpoint: str | None, region: str, expected: str) -> None:
    storage = S3Storage("images", "p", S3Access(endpoint, region, "AKIATESTTEST", "wJalr-the-secret"))

    assert upload_of(storage, "k.png").url == expected
    assert storage.url("k.png").startswith(f"{expected}?")
    storage.close()


def test_secrets_are_in_no_repr(bucket: S3Storage) -> None:
    known = access("http://127.0.0.1:1")

    assert "AKIA" not in repr(known) + repr(bucket)
    assert "wJalr" not in repr(known) + repr(bucket) + repr(Connection.open(bucket.bucket, known))


def test_a_missing_bucket_is_named_with_the_command_that_creates_it(s3_endpoint: str) -> None:
    storage = S3Storage("nobodys", "", access(s3_endpoint))
    acts: list[Callable[[], object]] = [storage.check, lambda: put(storage), storage.list]
    for act in acts:
        with pytest.raises(StorageError, match=r"s3://nobodys.*bucket.*DARKROOM_STORAGE_URL") as refused:
            act()
        assert not refused.value.retryable
    storage.close()


def test_a_bucket_outside_us_east_1_is_created_in_its_region(s3_endpoint: str) -> None:
    storage = S3Storage("in-frankfurt", "", access(s3_endpoint, region="eu-central-1"))
    storage.create()
    assert put(storage) is None
    storage.close()


def test_a_store_that_refuses_connections_is_a_retryable_error() -> None:
    storage = S3Storage("images", "", access("http://127.0.0.1:9", tries=1))
    acts: list[Callable[[], object]] = [
        storage.check,
        storage.create,
        storage.list,
        lambda: put(storage),
        lambda: storage.get(KEY),
        lambda: storage.head(KEY),
        lambda: storage.renew(KEY),
        lambda: storage.delete(KEY),
    ]
    for act in acts:
        with pytest.raises(StorageError, match=r"did not answer \(EndpointConnectionError\)") as refused:
            act()
        assert refused.value.retryable
    storage.close()


def test_an_endpoint_that_is_not_a_url_is_an_error_that_is_not_retryable() -> None:
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL_S3") as refused:
        S3Storage("images", "", access("not a url")).check()
    assert not refused.value.retryable


class Canned(BaseHTTPRequestHandler):
    """Answers every request with the server's `answer`: a status and a body, with a Content-Length that may be too large."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body, missing = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + missing))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def canned() -> Iterator[Callable[..., S3Storage]]:
    """A store that gives the answers it is passed, and then the last one again and again."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    storage = S3Storage("images", "", access(f"http://127.0.0.1:{server.server_port}", tries=1))

    def answering(*answers: tuple[int, bytes, int]) -> S3Storage:
        server.answers = list(answers)  # type: ignore[attr-defined]
        return storage

    yield answering
    storage.close()
    server.shutdown()
    thread.join()
    server.server_close()


def error_body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>AKIATESTTEST wJalr-the-secret</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "sentence", "retryable"),
    [
        (403, "AccessDenied", "needs s3:ListBucket", False),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID", False),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY", False),
        (403, "RequestTimeTooSkewed", "clock", True),
        (400, "ExpiredToken", "AWS_SESSION_TOKEN", True),
        (400, "AuthorizationHeaderMalformed", "AWS_DEFAULT_REGION", False),
        (404, "NoSuchBucket", "DARKROOM_STORAGE_URL", False),
        (501, "NotImplemented", "conditional writes", False),
        (503, "SlowDown", "503 SlowDown; try again later", True),
        (500, "InternalError", "500 InternalError; try again later", True),
        (429, "TooManyRequests", "429 TooManyRequests", True),
        (400, "EntityTooLarge", "400 EntityTooLarge", False),
        (418, "<b>&bad", "without a reason", False),
    ],
)
def test_put_and_read_upload_translate_a_refusal_in_the_same_way(
    canned: Callable[..., S3Storage], status: int, code: str, sentence: str, retryable: bool
) -> None:
    storage = canned((status, error_body(code), 0))

    with pytest.raises(StorageError) as ours:
        put(storage)
    with pytest.raises(StorageError) as theirs:
        storing.read_upload(status, error_body(code), key=KEY)

    for refused in (ours.value, theirs.value):
        assert sentence in str(refused)
        assert refused.retryable is retryable
        assert "wJalr" not in str(refused)
        assert "AKIA" not in str(refused)
        assert KEY in str(refused)


def test_a_conflict_is_retried(canned: Callable[..., S3Storage]) -> None:
    conflict = (409, error_body("ConditionalRequestConflict"), 0)

    assert put(canned(conflict, conflict, (200, b"", 0))) is None


def test_an_endless_conflict_is_a_retryable_error(canned: Callable[..., S3Storage]) -> None:
    with pytest.raises(StorageError, match="other writers") as refused:
        put(canned((409, error_body("ConditionalRequestConflict"), 0)))
    assert refused.value.retryable


def test_an_object_that_is_deleted_between_put_and_head_is_written(canned: Callable[..., S3Storage]) -> None:
    assert put(canned((412, error_body("PreconditionFailed"), 0), (404, b"", 0), (200, b"", 0))) is None


@pytest.mark.parametrize(("status", "end"), [(200, "stored"), (204, "stored"), (412, "exists"), (409, "again")])
def test_an_upload_ends_in_one_of_three_ways(status: int, end: str) -> None:
    assert storing.read_upload(status, key=KEY) == end


@pytest.mark.parametrize(("status", "retryable"), [(301, False), (307, True), (400, False), (404, False), (502, True)])
def test_any_other_status_of_an_upload_is_an_error(status: int, retryable: bool) -> None:
    with pytest.raises(StorageError) as refused:
        storing.read_upload(status, b"<html>", key=KEY)
    assert refused.value.retryable is retryable


def test_a_truncated_response_is_a_retryable_error(canned: Callable[..., S3Storage]) -> None:
    with pytest.raises(StorageError) as refused:
        canned((200, b"half", 1000)).get(KEY)
    assert refused.value.retryable


def test_a_response_that_is_not_xml_is_translated_too(canned: Callable[..., S3Storage]) -> None:
    with pytest.raises(StorageError, match="list s3://images: the store answered"):
        canned((200, b"{not xml", 0)).list()


def foreign_errors() -> list[Exception]:
    from botocore import exceptions, parsers

    found: list[Exception] = [parsers.ResponseParserError("x"), OSError(errno.ECONNRESET, "x"), ValueError("x")]
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, (exceptions.BotoCoreError, exceptions.ClientError)):
            made = kind.__new__(kind)
            made.response = {"Error": {"Code": "Odd"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            found.append(made)
    return found


def test_every_exception_of_botocore_is_translated(bucket: S3Storage) -> None:
    assert len(foreign_errors()) > 80
    for foreign in foreign_errors():
        with pytest.raises(StorageError) as ours, bucket._calling("get", KEY):
            raise foreign
        assert ours.value.__cause__ is foreign
        assert len(str(ours.value)) < 300


def test_without_credentials_the_message_says_how_to_set_them(s3_endpoint: str, tmp_path: Path) -> None:
    program = f"""
from jobs.storage import S3Access, S3Storage
from jobs.errors import StorageError
storage = S3Storage("images", "", S3Access({s3_endpoint!r}))
for act in (storage.check, lambda: storage.upload_request("k", content_type="a/b", metadata={{}}, sha256="0" * 64)):
    try:
        act()
    except StorageError as error:
        print(error)
"""
    environment = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), "PATH": os.defpath}

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )

    assert ran.stdout.count("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") == 2


def test_the_standard_variables_configure_the_store(s3_endpoint: str, bucket: S3Storage, tmp_path: Path) -> None:
    program = """
from jobs.storage import open_storage
storage = open_storage("s3://images/some/where", public_url=None, secret_keys=())
storage.put("k", b"x", content_type="text/plain", metadata={})
print(storage.url("k"))
"""
    environment = {
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "HOME": str(tmp_path),
        "PATH": os.defpath,
    }

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )

    assert ran.stdout.startswith(f"{s3_endpoint}/images/some/where/k?")
    assert "eu-central-1" in ran.stdout
    assert bucket.get("k") == b"x"


# Folder


def test_a_folder_has_no_upload_requests(folder: FolderStorage) -> None:
    assert folder.upload_request(KEY, content_type="image/png", metadata={}, sha256=SHA256) is None


def test_a_put_leaves_only_the_file_and_its_description(folder: FolderStorage) -> None:
    put(folder)
    put(folder)

    files = {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*") if path.is_file()}
    assert files == {KEY, f".metadata/{KEY}.json"}
    assert (folder.root / KEY).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [None, b"", b"{", b"[]", b'{"content_type": "image/png"}'])
def test_a_file_without_a_readable_description_is_described_by_its_name_and_bytes(
    folder: FolderStorage, left: bytes | None
) -> None:
    put(folder)
    sidecar = folder.root / ".metadata" / f"{KEY}.json"
    sidecar.unlink() if left is None else sidecar.write_bytes(left)

    stored = folder.head(KEY)

    assert stored is not None
    assert (stored.content_type, stored.sha256, stored.size) == ("image/png", SHA256, len(CONTENT))


def test_writing_the_same_content_again_adds_the_description_that_a_crash_left_out(folder: FolderStorage) -> None:
    put(folder)
    (folder.root / ".metadata" / f"{KEY}.json").unlink()

    existing = put(folder)

    assert existing is not None
    assert existing.metadata == METADATA


def test_the_temporary_file_of_a_crashed_writer_is_ignored(folder: FolderStorage) -> None:
    (folder.root / KEY).parent.mkdir(parents=True)
    (folder.root / KEY).with_name(".0.png.5f.tmp").write_bytes(b"half")

    assert folder.list() == ()
    assert put(folder) is None
    assert len(folder.list()) == 1


def test_a_folder_is_not_an_object(folder: FolderStorage) -> None:
    put(folder)

    assert folder.head("jobs/01JOB") is None
    assert folder.head(f"{KEY}/below") is None
    with pytest.raises(StorageError, match="not a folder"):
        put(folder, f"{KEY}/below")


def test_without_a_public_url_the_url_is_the_file(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "with space")
    put(storage)

    url = storage.url(KEY)

    assert Path(unquote(url.removeprefix("file://"))).read_bytes() == CONTENT


def test_the_url_of_a_file_is_signed_for_its_key_and_its_expiry(folder: FolderStorage) -> None:
    parts = urlsplit(folder.url(KEY, 60))
    given = {name: values[0] for name, values in parse_qs(parts.query).items()}
    now = time.time()

    assert (parts.scheme, parts.netloc, parts.path) == ("https", "darkroom.example", f"/files/{KEY}")
    assert 58 <= int(given["expires"]) - now <= 60
    assert storing.verify_path(KEY, **given, secret_keys=SECRETS, now=now)
    assert not storing.verify_path(KEY, **given, secret_keys=SECRETS, now=now + 61)
    assert not storing.verify_path("jobs/01JOB/1/1.png", **given, secret_keys=SECRETS, now=now)
    assert not storing.verify_path(KEY, **given, secret_keys=("another",), now=now)
    assert not storing.verify_path(KEY, **given, secret_keys=(), now=now)
    later = {**given, "expires": str(int(given["expires"]) + 1)}
    assert not storing.verify_path(KEY, **later, secret_keys=SECRETS, now=now)


def test_an_old_secret_still_verifies_and_the_first_one_signs() -> None:
    old = storing.sign_path(KEY, expires=2_000_000_000, secret_keys=SECRETS[1:])

    given = {name: values[0] for name, values in parse_qs(old).items()}
    assert storing.verify_path(KEY, **given, secret_keys=SECRETS, now=0)
    assert storing.sign_path(KEY, expires=2_000_000_000, secret_keys=SECRETS) != old


def test_the_signature_of_a_path_never_changes() -> None:
    """The wire between processes of different versions: HMAC-SHA256 of 'darkroom-file', key and expiry, by line."""
    assert storing.sign_path("k", expires=1, secret_keys=["secret"]) == (
        "expires=1&signature=92d341e6f3d0246b518813f05bc740a8cd2647f5ea2cbd6e28d2edb6fda9721c"
    )


@pytest.mark.parametrize("expires", ["", "-1", "1e9", "٣", "9" * 13, " 1", "0x1"])
@pytest.mark.parametrize("signature", ["", "ä", "0" * 64])
def test_a_malformed_query_is_refused(expires: str, signature: str) -> None:
    assert not storing.verify_path(KEY, expires=expires, signature=signature, secret_keys=SECRETS, now=0)


def test_without_a_secret_no_url_is_signed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_SECRET_KEYS"):
        FolderStorage(tmp_path, public_url="https://darkroom.example").url(KEY)


@pytest.mark.parametrize("root", ["/proc/darkroom", "/dev/null/darkroom", "/dev/null"])
def test_a_folder_that_cannot_be_written_is_named(root: str) -> None:
    storage = FolderStorage(Path(root))
    acts: list[Callable[[], object]] = [storage.check, storage.create, lambda: put(storage)]
    for act in acts:
        with pytest.raises(StorageError, match=root):
            act()


@pytest.mark.parametrize(
    ("number", "sentence", "retryable"),
    [
        (errno.ENOSPC, "free some space", True),
        (errno.EDQUOT, "free some space", True),
        (errno.EIO, "EIO", True),
        (errno.EROFS, "mount", False),
        (errno.EACCES, "owner", False),
        (errno.EMFILE, "ulimit -n", True),
    ],
)
def test_an_error_of_the_system_is_translated(number: int, sentence: str, retryable: bool) -> None:
    with pytest.raises(StorageError, match=sentence) as ours, translated_errors("put", Path("/x")):
        raise OSError(number, "x")
    assert ours.value.retryable is retryable


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from jobs.errors import StorageError
from jobs.storage import FolderStorage
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
storage = FolderStorage(Path({str(tmp_path)!r}))
try:
    storage.put({KEY!r}, bytes(10_000), content_type="image/png", metadata={{}})
except StorageError as error:
    print(error.retryable, error)
assert not storage.exists({KEY!r})
assert storage.put({KEY!r}, bytes(1_000), content_type="image/png", metadata={{}}) is None
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert ran.stdout.startswith(f"False put {tmp_path}/{KEY}: the file is larger than")
    assert not list(tmp_path.rglob("*.tmp"))


def test_of_many_processes_exactly_one_wins(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from jobs.storage import FolderStorage
content = sys.argv[1].encode() * 100_000
end = FolderStorage(Path({str(tmp_path)!r})).put({KEY!r}, content, content_type="image/png", metadata={{"by": sys.argv[1]}})
print("won" if end is None else end.metadata.get("by", "undescribed"))
"""
    ran = [
        subprocess.Popen([sys.executable, "-c", program, name], stdout=subprocess.PIPE, text=True) for name in "abcd"
    ]
    ends = [process.communicate(timeout=30)[0].strip() for process in ran]

    winner = FolderStorage(tmp_path).get(KEY)[:1].decode()
    assert ends["abcd".index(winner)] == "won"
    assert ends.count("won") == 1
    assert set(ends) <= {"won", winner, "undescribed"}


# Opening, names


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://images", "S3Storage('s3://images/')"),
        ("s3://images/", "S3Storage('s3://images/')"),
        ("s3://my.images/some/where/", "S3Storage('s3://my.images/some/where/')"),
        ("file:///srv/images", "FolderStorage('/srv/images')"),
        ("file:///srv/my%20images", "FolderStorage('/srv/my images')"),
    ],
)
def test_the_url_chooses_the_storage(url: str, expected: str) -> None:
    assert repr(open_storage(url, public_url=None, secret_keys=())) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3://",
        "s3:///x",
        "s3://a",
        "s3://b u",
        "s3://images/../x",
        "file://relative",
        "file://",
        "https://x/y",
        "/x",
    ],
)
def test_any_other_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(SettingsError, match="for example DARKROOM_STORAGE_URL=s3://"):
        open_storage(url, public_url=None, secret_keys=())


def test_keys_are_deterministic() -> None:
    assert storing.artifact_key("01JOB", 2, 0, "png") == "jobs/01JOB/2/0.png"
    with pytest.raises(InvalidRequest):
        storing.artifact_key("../..", 1, 0, "png")


def test_the_metadata_of_an_artifact_says_that_a_model_made_it() -> None:
    assert METADATA["digital-source-type"].endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert METADATA == METADATA | {
        "job-id": "01JOB",
        "operation": "deepmode.generate",
        "attempt": "1",
        "sha256": SHA256,
    }


def test_importing_storage_and_using_a_folder_loads_no_boto3(tmp_path: Path) -> None:
    program = f"""
import sys
from jobs.storage import open_storage
storage = open_storage("file://{tmp_path}", public_url=None, secret_keys=())
storage.put("k", b"x", content_type="text/plain", metadata={{}})
open_storage("s3://images", public_url=None, secret_keys=())
sys.exit(bool({{"boto3", "botocore"}} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 0
