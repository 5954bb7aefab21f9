"""Redis servers that a test may kill, demote and misconfigure."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from jobs.embedded import free_port
from jobs.embedded import redis as embedded


@dataclass
class RedisServer:
    """A Redis with an append-only file that can be killed and started again at the same place."""

    port: int
    folder: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        """Start the server and wait until it answers."""
        self.launch(*options)
        with self.client() as client:
            client.ping()

    def launch(self, *options: str) -> None:
        """Start the server; it may still be loading its data."""
        source = embedded.resolve()
        if not isinstance(source, embedded.Binary):
            pytest.skip("needs a real Redis")
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            source.path,
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--appendonly",
            "yes",
            "--save",
            "",
        ]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)

    def client(self) -> Redis:
        """A client that waits until the server is there."""
        return Redis(port=self.port, retry=Retry(ConstantBackoff(0.02), 500, (RedisConnectionError,)))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts Redis servers on free ports; the arguments are options of `redis-server`."""
    with ExitStack() as stack:

        def started(*options: str) -> RedisServer:
            port = free_port()
            server = RedisServer(port, tmp_path / str(port))
            stack.callback(server.kill)
            server.start(*options)
            return server

        yield started


@pytest.fixture
def server(new_server: Callable[..., RedisServer]) -> RedisServer:
    """A running Redis of its own."""
    return new_server()
