"""The whole of Darkroom on one machine: a Redis, a worker, the receiver and, for vendors without a key, the sandbox."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import httpx

from .. import providers
from ..darkroom import Darkroom
from ..errors import DarkroomError
from ..sandbox.faults import PROVIDERS as PLAYED
from ..settings import Settings
from . import redis
from .processes import Command, DidNotStart, Process, Processes, free_port

#: the file, in the folder of a running stack, that tells other commands how to reach it
ENV_FILE = "env"
#: threads of the receiver: waiting clients hold one each, and a quarter is kept for callbacks
BLOCKING_THREADS = 16
#: how long a stopping worker of the stack waits for what is in flight; the record covers what it leaves
DRAIN_SECONDS = 5.0
_SANDBOX_KEY = "sandbox"
_PREFIX = "DARKROOM_"


class Occupied(DarkroomError):
    """Other workers serve the Redis that was given, and would be paid for what the sandbox should play."""


class Stack:
    """Everything that a job needs, started and stopped with the context.

    `given` holds the settings that stand (as environment variables); the rest is the stack's own and whatever else of
    Darkroom's the environment holds is left out. A vendor whose key is given is called for real; the sandbox plays the others.
    Raises DidNotStart, Occupied and SettingsError.
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        sandbox_options: Sequence[str] = (),
    ) -> None:
        self.folder = folder.absolute()
        self.given = dict(given or {})
        self.source = redis.resolve(self.given.get("DARKROOM_REDIS_URL", ""))
        self.played = tuple(name for name in PLAYED if not self.given.get(f"{name.upper()}_API_KEY"))
        self.environ: dict[str, str] = {}
        self._receiver_port = port or free_port()
        self._sandbox_port = free_port()
        self._sandbox_options = tuple(sandbox_options)
        self._processes = Processes(self.folder / "logs")
        self._exit = ExitStack()

    # --- life -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        make_private_folder(self.folder)
        with ExitStack() as undo:
            undo.enter_context(self._processes)
            self.environ = self._environ(self._started_redis())
            self._refuse_other_workers()
            self._start_the_rest()
            self._exit = undo.pop_all()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._exit.close()

    def revive(self) -> tuple[str, ...]:
        """Starts again what ended by itself; returns the names. Call it every second or so."""
        dead = [process for process in self._processes.running if not process.alive]
        for process in dead:
            self._processes.kill(process)
            self._processes.start(process.command)
        return tuple(process.name for process in dead)

    def process(self, name: str) -> Process:
        """The running child of this name: `redis`, `sandbox`, `receiver` or `worker`."""
        return next(process for process in self._processes.running if process.name == name)

    def kill(self, name: str) -> None:
        """SIGKILL for one child."""
        self._processes.kill(self.process(name))

    def start_worker(self, name: str = "worker") -> Process:
        """Starts a worker; returns when Redis knows it."""
        known = self._workers()
        worker = self._processes.start(self._worker(name))
        worker.await_ready(lambda: bool(self._workers() - known))
        return worker

    # --- what it offers -------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the receiver listens."""
        return f"http://127.0.0.1:{self._receiver_port}"

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox listens; nothing is there when every vendor has a key."""
        return f"http://127.0.0.1:{self._sandbox_port}"

    @property
    def durable(self) -> bool:
        """Whether what was accepted outlives the stack."""
        return not isinstance(self.source, redis.Fake)

    @property
    def logs(self) -> Path:
        """The folder of what the children say."""
        return self.folder / "logs"

    @property
    def pictures(self) -> Path:
        """The folder of the pictures, unless another storage was given."""
        return self.folder / "pictures"

    @property
    def api_key_file(self) -> Path:
        """The file that holds the bearer key of the HTTP API."""
        return self.folder / "api-key"

    @property
    def settings(self) -> Settings:
        """The settings as the children have them."""
        own = {name.removeprefix(_PREFIX).lower(): value for name, value in self.environ.items()}
        named = {name: own[name] for name in Settings.model_fields if own.get(name)}
        return Settings(**{"broker_url": "", "public_url": "", **named})  # type: ignore[arg-type]

    @cached_property
    def darkroom(self) -> Darkroom:
        """A producer bound to this stack."""
        return Darkroom.open(self.settings, patience_seconds=2.0)

    # --- how it is started ----------------------------------------------------------------------------------------

    def _started_redis(self) -> str:
        if isinstance(self.source, redis.Given):
            if not redis.answers(self.source.url):
                raise DidNotStart(f"no Redis answers at {without_password(self.source.url)} (DARKROOM_REDIS_URL)")
            return self.source.url
        _, url = redis.start(self._processes, self.source, self.folder / "redis")
        return url

    def _refuse_other_workers(self) -> None:
        if self.played and (others := self._workers()):
            raise Occupied(
                f"{len(others)} other worker(s) serve the Redis of DARKROOM_REDIS_URL and could be charged for jobs that the "
                "sandbox should play; unset DARKROOM_REDIS_URL to have a private one"
            )

    def _start_the_rest(self) -> None:
        sandbox = self._processes.start(self._sandbox()) if self.played else None
        receiver = self._processes.start(self._receiver())
        worker = self._processes.start(self._worker())
        if sandbox:
            sandbox.await_ready(lambda: _is_ok(f"{self.sandbox_url}/_sandbox/health"))
        receiver.await_ready(lambda: _is_ok(f"{self.url}/readyz"))
        worker.await_ready(lambda: bool(self._workers()))

    def _workers(self) -> frozenset[str]:
        return frozenset(self.darkroom.repository.workers())

    def _worker(self, name: str = "worker") -> Command:
        arguments = ["-m", "celery", "-A", "worker", "worker", "--loglevel", "INFO", "-n", f"{name}@%h"]
        return self._python(name, *arguments)

    def _receiver(self) -> Command:
        # Heads are small and come at once.
        heads = ["--http", "1", "--http1-header-read-timeout", "10000", "--http1-buffer-size", "65536"]
        options = ["--interface", "wsgi", "--no-ws", *heads, "--host", "127.0.0.1", "--port", str(self._receiver_port)]
        # Granian forgets to stop a child that is not up yet; without a limit it would wait for it for ever.
        limit = ["--workers-kill-timeout", "2"]
        return self._python("receiver", "-m", "granian", *options, *limit, "--factory", "webhooks:create_app")

    def _sandbox(self) -> Command:
        state = ["--state", str(self.folder / "sandbox.journal")]
        options = ["--port", str(self._sandbox_port), "--api-key", _SANDBOX_KEY, *state, *self._sandbox_options]
        return self._python("sandbox", "-m", "jobs.sandbox", *options)

    def _python(self, name: str, *arguments: str) -> Command:
        # Not in the caller's folder: a `worker.py` that lies there would be taken for ours.
        return Command(name, [sys.executable, *arguments], self.environ, self.folder)

    # --- the environment of its children --------------------------------------------------------------------------

    def _environ(self, redis_url: str) -> dict[str, str]:
        own = {
            "DARKROOM_STORAGE_URL": self.pictures.as_uri(),
            "DARKROOM_PUBLIC_URL": self.url if set(self.played) == set(providers.names()) else "",
            "DARKROOM_SECRET_KEYS": kept_secret(self.folder / "secret-key"),
            "DARKROOM_API_KEYS": kept_secret(self.api_key_file),
            "DARKROOM_SPOOL_DIR": str(self.folder / "spool"),
            "DARKROOM_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}",
            # By the environment, where the application can see it too: it keeps a share of the threads for callbacks.
            "GRANIAN_BLOCKING_THREADS": str(BLOCKING_THREADS),
        }
        blank = {name: "" for name in os.environ if name.startswith(_prefixes())}
        return {**blank, **own, **self.given, **self._networks(), **self._vendors(), "DARKROOM_REDIS_URL": redis_url}

    def _networks(self) -> dict[str, str]:
        """Results of the sandbox lie on this machine, so its workers may fetch from there."""
        name = "DARKROOM_ALLOWED_PRIVATE_NETWORKS"
        networks = (self.given.get(name, ""), "127.0.0.0/8" if self.played else "")
        return {name: ",".join(filter(None, networks))}

    def _vendors(self) -> dict[str, str]:
        urls = {f"{name.upper()}_BASE_URL": f"{self.sandbox_url}/{name}" for name in self.played}
        return urls | {f"{name.upper()}_API_KEY": _SANDBOX_KEY for name in self.played}


# Files ------------------------------------------------------------------------------------------------------------


def write_env_file(stack: Stack) -> Path:
    """Writes how to reach the stack, as lines that a shell can read too; nobody else can read them."""
    file = stack.folder / ENV_FILE
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in stack.environ.items() if name.startswith(_PREFIX))
    _write_private(file, "".join(sorted(lines)))
    return file


def read_env_file(folder: Path) -> dict[str, str]:
    """What `write_env_file` wrote, if the Redis of that stack answers; otherwise nothing."""
    file = folder / ENV_FILE
    if not file.is_file():
        return {}
    found = dict(part.split("=", 1) for part in shlex.split(file.read_text()))
    return found if redis.answers(found.get("DARKROOM_REDIS_URL", "")) else {}


def kept_secret(file: Path) -> str:
    """The secret in this file; made when it is not there."""
    if not file.exists():
        _write_private(file, secrets.token_urlsafe(32) + "\n")
    return file.read_text().strip()


def _write_private(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)


def make_private_folder(folder: Path) -> None:
    """Makes a folder that only its owner can read; one that is there stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host))


def _prefixes() -> tuple[str, ...]:
    return (_PREFIX, *(f"{name.upper()}_" for name in providers.names()))


def _is_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
