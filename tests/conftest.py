"""What all tests share: real servers on free loopback ports, each started once a session and stopped at its end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import boto3
import hypothesis
import pytest
from leaks import no_leaks
from redis import Redis

from jobs.embedded import Command, Processes
from jobs.embedded import free_port as any_free_port
from jobs.embedded import redis as embedded_redis
from jobs.embedded.stack import Stack
from jobs.sandbox import Sandbox
from jobs.storage import S3Access

#: `HYPOTHESIS_PROFILE` names one: `fuzz` looks as long as FUZZ_EXAMPLES says (`make fuzz`)
hypothesis.settings.register_profile("default", max_examples=1000, deadline=None)
hypothesis.settings.register_profile(
    "fuzz", max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20000")), deadline=None, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a thread or a child process running; those of fixtures with a wider scope may go on."""
    with nullcontext() if request.node.get_closest_marker("starts_shared") else no_leaks():
        yield


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody listens on."""
    return any_free_port()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children that the test starts can be ended by SIGINT, even where the test run itself ignores it (`make test &`)."""
    # A signal that is caught goes back to its default in a new program; one that is ignored stays ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Starts child processes that end with the session, whatever happens to it."""
    with Processes(tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture(scope="session")
def redis_server(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a real Redis with an append-only file, the floor that Darkroom supports where the bundled one is there."""
    source = embedded_redis.resolve()
    assert not isinstance(source, embedded_redis.External)
    _, url = embedded_redis.start(processes, source, tmp_path_factory.mktemp("redis"))
    return url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a real Redis whose database is empty."""
    with Redis.from_url(redis_server) as redis:
        redis.flushdb()
    return redis_server


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of a real Redis whose database is empty."""
    with Redis.from_url(redis_url) as client:
        yield client


@dataclass(frozen=True)
class S3:
    """A real S3 server with one empty bucket."""

    endpoint_url: str
    bucket: str
    access: S3Access
    #: the `AWS_*` variables under which boto3 finds it
    environ: Mapping[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        """As DARKROOM_STORAGE_URL has it."""
        return f"s3://{self.bucket}"

    def client(self) -> boto3.client:
        """A plain boto3 client, to look at what was stored."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.access.region,
            aws_access_key_id=self.access.access_key_id,
            aws_secret_access_key=self.access.secret_access_key,
        )


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def s3_server(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The endpoint of moto's S3 server, in a process of its own."""
    port = any_free_port()
    arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = processes.start(Command("s3", arguments, {}, tmp_path_factory.mktemp("s3")))
    process.await_ready(lambda: _listens(port))
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def s3(s3_server: str, request: pytest.FixtureRequest) -> S3:
    """A real S3 server and a new bucket in it."""
    access = S3Access(s3_server, "us-east-1", "AKIATESTTEST", "wJalr-the-secret")
    environ = {
        "AWS_ENDPOINT_URL_S3": s3_server,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIATESTTEST",
        "AWS_SECRET_ACCESS_KEY": "wJalr-the-secret",
    }
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    server = S3(s3_server, f"images-{name}", access, environ)
    server.client().create_bucket(Bucket=server.bucket)
    return server


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """The sandbox in this process, without latency and with small images."""
    with Sandbox(image_size=64) as played:
        yield played


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What `darkroom up` runs, without any key: Redis, sandbox, receiver and worker as processes, pictures in a folder."""
    options = ("--latency", "0.2", "--image-size", "64")
    with Stack(tmp_path_factory.mktemp("stack"), sandbox_options=options) as running:
        yield running


#: reads a message from stdin, and prints what the public library makes of it
_VERIFY_JS = """
const { Webhook } = require("standardwebhooks");
const { secret, headers, body } = JSON.parse(require("fs").readFileSync(0, "utf8"));
try {
  console.log(JSON.stringify({ payload: new Webhook(secret).verify(body, headers) }));
} catch (error) {
  console.log(JSON.stringify({ refused: error.message }));
}
"""


@pytest.fixture(scope="session")
def verified_by_npm(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Mapping[str, str], str], dict[str, Any]]:
    """What npm's `standardwebhooks` says of a message: `payload`, or why it is `refused`. Fails without Node."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    (folder / "verify.js").write_text(_VERIFY_JS)
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-progress", "standardwebhooks@1"]
    installed = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert installed.returncode == 0, installed.stderr

    def verified(secret: str, headers: Mapping[str, str], body: str) -> dict[str, Any]:
        message = json.dumps({"secret": secret, "headers": dict(headers), "body": body})
        ended = subprocess.run(
            ["node", "verify.js"], cwd=folder, input=message, capture_output=True, text=True, timeout=30, check=True
        )
        answer: dict[str, Any] = json.loads(ended.stdout)
        return answer

    return verified
