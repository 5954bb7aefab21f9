"""The whole of Darkroom as real processes, started once a session: Redis, moto's S3, the sandbox, workers and receivers.

Three sites share them, each in a database of Redis of its own, so that every answer shape of every vendor has a place:

- `calling`: with a public URL, so vendors call back (signed, where they can); Phota in its async mode
- `quiet`:   without one, so vendors answer at once or are polled; Phota in its sync mode
- `folder`:  pictures in a folder, served by the receiver
"""

from __future__ import annotations

import hashlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from PIL import Image
from redis import Redis

from jobs import Job
from jobs.darkroom import Darkroom
from jobs.embedded import Command, Process, Processes, free_port
from jobs.embedded import redis as embedded_redis
from jobs.queue import Dispatch, application
from jobs.request import Request
from jobs.sandbox import Sandbox
from jobs.settings import Settings
from jobs.state.repository import Repository
from jobs.storage import S3Access, S3Storage, Storage, open_storage

SECRETS = {"chainhub": "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=", "phota": "the-secret-of-phota"}
ACCESS_KEY, SECRET_KEY = "AKIATESTTEST", "wJalr-the-secret"
#: how long a job of these tests may take
PATIENCE_SECONDS = 40.0


def a_picture(color: str = "red", kind: str = "PNG") -> bytes:
    """A small image."""
    buffer = io.BytesIO()
    Image.new("RGB", (320, 200), color).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A small image."""
    return a_picture()


@dataclass(frozen=True)
class Bucket:
    """A bucket on moto's server, as a plain boto3 client sees it."""

    endpoint_url: str
    name: str
    client: Any = field(repr=False)

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment in which a process finds it."""
        return {
            "DARKROOM_STORAGE_URL": f"s3://{self.name}/pictures",
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def storage(self) -> S3Storage:
        """The storage of this bucket."""
        return S3Storage(self.name, "pictures", S3Access(self.endpoint_url, "us-east-1", ACCESS_KEY, SECRET_KEY))

    def read(self, key: str) -> Mapping[str, Any]:
        """The object under a key: `Body`, `ContentType`, `Metadata`."""
        found = self.client.get_object(Bucket=self.name, Key=f"pictures/{key}")
        return {**found, "Body": found["Body"].read()}

    def keys(self, prefix: str) -> list[str]:
        """The keys with this prefix."""
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=f"pictures/{prefix}")
        return [entry["Key"].removeprefix("pictures/") for entry in found.get("Contents", [])]


@pytest.fixture(scope="session")
def bucket(s3_server: str) -> Iterator[Bucket]:
    """The bucket of all journeys."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    client.create_bucket(Bucket="journeys")
    yield Bucket(s3_server, "journeys", client)
    client.close()


@dataclass(frozen=True)
class Vendors:
    """The sandbox as a process, and its ledger."""

    sandbox: Sandbox

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment in which a worker finds them."""
        return self.sandbox.environment

    def arm(self, *faults: str) -> None:
        """Arm faults."""
        self.sandbox.arm(*faults)

    def disarm(self) -> None:
        """Disarm all faults."""
        self.sandbox.disarm()

    def submissions(self, prompt: str = "") -> list[dict[str, Any]]:
        """The submissions with this prompt, or all of them."""
        answer = httpx.get(f"{self.sandbox.url}/_sandbox/ledger?digests=0", trust_env=False, timeout=10)
        return [one for one in answer.json()["submissions"] if not prompt or one["prompt"] == prompt]

    def served(self, task_id: str) -> dict[int, str]:
        """The SHA-256 of each image of a submission that was served completely, by index."""
        return {
            one["index"]: one["sha256"] for one in self.sandbox.served() if one["task_id"] == task_id and one["genuine"]
        }

    def await_submission(self, prompt: str, count: int = 1) -> list[dict[str, Any]]:
        """Return once there are so many submissions with this prompt."""
        until(lambda: len(self.submissions(prompt)) >= count, f"{count} submission(s) of {prompt!r}")
        return self.submissions(prompt)


def until(true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return once `true()` is; fail after so many seconds."""
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, f"waited {seconds:g} s for {what}"
        time.sleep(0.03)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Waits for a condition; fails after a while."""
    return until


def start_sandbox(processes: Processes, folder: Path, *options: str, name: str = "sandbox") -> tuple[Process, Vendors]:
    """A sandbox as a process; it may not be ready yet."""
    port = free_port()
    secrets = [part for vendor, secret in SECRETS.items() for part in ("--webhook-secret", f"{vendor}={secret}")]
    arguments = ["-m", "jobs.sandbox", "--port", str(port), "--image-size", "192", *secrets, *options]
    process = processes.start(Command(name, [sys.executable, *arguments], {}, folder))
    return process, Vendors(Sandbox("127.0.0.1", port))


@pytest.fixture(scope="session")
def new_vendors(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Vendors]:
    """Starts a sandbox with these options."""

    def new(name: str, *options: str) -> Vendors:
        process, vendors = start_sandbox(processes, tmp_path_factory.mktemp(name), *options, name=f"sandbox-{name}")
        process.await_ready(lambda: answers(f"{vendors.sandbox.url}/_sandbox/health"))
        return vendors

    return new


@pytest.fixture(scope="session")
def vendors(new_vendors: Callable[..., Vendors]) -> Vendors:
    """The providers, which take a moment for a result."""
    return new_vendors("vendors", "--latency", "0.3")


def answers(url: str) -> bool:
    """Whether a GET is answered with a 2xx."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Site:
    """Workers and perhaps a receiver over one database of Redis, and a producer bound to them."""

    name: str
    environ: Mapping[str, str] = field(repr=False)
    darkroom: Darkroom = field(repr=False)
    redis: Redis = field(repr=False)
    vendors: Vendors = field(repr=False)
    processes: Processes = field(repr=False)
    folder: Path

    def start_worker(self, name: str = "worker", environ: Mapping[str, str] | None = None) -> Process:
        """`celery -A worker worker` as a process; it may not be ready yet."""
        arguments = ["-m", "celery", "-A", "worker", "worker", "--loglevel", "INFO", "-n", f"{name}-{self.name}@test"]
        command = Command(
            f"{name}-{self.name}", [sys.executable, *arguments], {**self.environ, **(environ or {})}, self.folder
        )
        return self.processes.start(command)

    def start_receiver(self, port: int) -> Process:
        """The receiver under granian; it may not be ready yet."""
        options = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--blocking-threads", "8"]
        arguments = ["-m", "granian", *options, "--factory", "webhooks:create_app"]
        return self.processes.start(
            Command(f"receiver-{self.name}", [sys.executable, *arguments], self.environ, self.folder)
        )

    def await_workers(self, process: Process, count: int = 1) -> None:
        """Return once Redis knows so many workers."""
        process.await_ready(lambda: len(self.darkroom.repository.workers()) >= count)

    def enqueue(self, request: Request, *faults: str, **options: Any) -> Job:
        """Enqueue a request whose submission meets these faults, and return once the provider has it."""
        if faults:
            self.vendors.arm(*faults)
        job = self.darkroom.enqueue(request, **options)
        self.vendors.await_submission(request.prompt)  # type: ignore[attr-defined]
        return job

    def wait(self, job: Job, seconds: float = PATIENCE_SECONDS) -> Job:
        """The job once it is final; if it never is, the failure shows everything about it."""
        try:
            return self.darkroom.wait(job.id, seconds)
        except TimeoutError:
            job = self.darkroom.get(job.id)
            pytest.fail(f"{job!r}\n{self.vendors.submissions(job.params['prompt'])}")

    def run(self, request: Request, *faults: str, **options: Any) -> Job:
        """Arm faults, enqueue, wait until the job is final, and disarm all faults."""
        self.vendors.arm(*faults)
        try:
            return self.wait(self.darkroom.enqueue(request, **options))
        finally:
            self.vendors.disarm()


@dataclass
class Sites:
    """Makes sites, each in the next database of Redis."""

    processes: Processes
    redis_server: str
    folders: pytest.TempPathFactory
    bucket: Bucket
    vendors: Vendors
    _database: int = 0

    def new(
        self,
        name: str,
        given: Mapping[str, str] | None = None,
        *,
        vendors: Vendors | None = None,
        storage: Storage | None = None,
    ) -> Site:
        """A site without any process yet; its images are in the bucket, unless `given` says otherwise."""
        self._database += 1
        vendors = vendors or self.vendors
        folder = self.folders.mktemp(name)
        redis_url = f"{self.redis_server.removesuffix('/0')}/{self._database}"
        environ = {
            **self.bucket.environ,
            **vendors.environ,
            "DARKROOM_REDIS_URL": redis_url,
            "DARKROOM_SECRET_KEYS": "the-signing-secret",
            "DARKROOM_API_KEYS": "the-api-key-of-a-test",
            "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "DARKROOM_SPOOL_DIR": str(folder / "spool"),
            **(given or {}),
        }
        redis = Redis.from_url(redis_url)
        redis.flushdb()
        darkroom = _producer(environ, storage)
        return Site(name, environ, darkroom, redis, vendors, self.processes, folder)


def _producer(environ: Mapping[str, str], storage: Storage | None) -> Darkroom:
    own = {name.removeprefix("DARKROOM_").lower(): value for name, value in environ.items()}
    settings = Settings(**{name: own[name] for name in Settings.model_fields if own.get(name)})
    repository = Repository.open(settings.redis_url, retention_seconds=settings.retention_seconds, patience_seconds=5)
    kept = storage or open_storage(
        settings.storage_url, public_url=settings.public_url, secret_keys=["the-signing-secret"]
    )
    return Darkroom(settings, repository, kept, Dispatch(application(settings), settings.broker_is_redis))


@pytest.fixture(scope="session")
def redis_server(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a real Redis of their own: their workers run on while other tests count connections and commands."""
    source = embedded_redis.resolve()
    assert not isinstance(source, embedded_redis.External)
    _, url = embedded_redis.start(processes, source, tmp_path_factory.mktemp("redis-of-journeys"))
    return url


@pytest.fixture(scope="session")
def sites(
    processes: Processes, redis_server: str, tmp_path_factory: pytest.TempPathFactory, bucket: Bucket, vendors: Vendors
) -> Iterator[Sites]:
    """Makes sites."""
    return Sites(processes, redis_server, tmp_path_factory, bucket, vendors)


@pytest.fixture(scope="session")
def running_sites(sites: Sites, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Site]:
    """The three sites, running."""
    ports = {"calling": free_port(), "folder": free_port()}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    pictures = tmp_path_factory.mktemp("pictures")
    signed = {f"{vendor.upper()}_WEBHOOK_SECRET": secret for vendor, secret in SECRETS.items()}
    modes = {"PHOTA_ASYNC": "true", "DEEPMODE_FACE_ID_RESULT": "callback"}
    found = (
        sites.new("calling", {"DARKROOM_PUBLIC_URL": urls["calling"], **signed, **modes}, storage=bucket.storage()),
        sites.new("quiet", storage=bucket.storage()),
        sites.new("folder", {"DARKROOM_PUBLIC_URL": urls["folder"], "DARKROOM_STORAGE_URL": f"file://{pictures}"}),
    )
    workers = [(site, site.start_worker()) for site in found]
    receivers = [
        (urls[name], next(site for site in found if site.name == name).start_receiver(ports[name])) for name in urls
    ]
    for site, worker in workers:
        site.await_workers(worker)
    for url, receiver in receivers:
        receiver.await_ready(lambda url=url: answers(f"{url}/readyz"))  # type: ignore[misc]
    return {site.name: site for site in found}


@pytest.fixture(scope="session")
def calling(running_sites: Mapping[str, Site]) -> Site:
    """The site to which providers call back."""
    return running_sites["calling"]


@pytest.fixture(scope="session")
def quiet(running_sites: Mapping[str, Site]) -> Site:
    """The site without a public URL."""
    return running_sites["quiet"]


@pytest.fixture(scope="session")
def folder(running_sites: Mapping[str, Site]) -> Site:
    """The site whose images are in a folder."""
    return running_sites["folder"]


@pytest.fixture(scope="session")
def sha256_of() -> Callable[[bytes], str]:
    """Returns the SHA-256 in hex."""
    return lambda content: hashlib.sha256(content).hexdigest()
