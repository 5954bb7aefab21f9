"""The whole of Darkroom on one machine: a Redis, a worker, the receiver and, for providers without a key, the sandbox."""

from __future__ import annotations

import shutil
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
from ..sandbox.faults import VENDORS as SANDBOXED
from ..settings import Settings, environment
from . import redis
from .commands import receiver_command, sandbox_command, worker_command
from .files import PREFIX, load_secret, make_private_folder
from .ports import HOST, check_port, free_port
from .processes import DidNotStart, Process, Processes

#: threads of the receiver: each waiting client holds one, and a quarter is kept for callbacks
BLOCKING_THREADS = 16
#: how long a stopping worker of the stack waits for calls in progress, in seconds; other workers recover what it leaves
DRAIN_SECONDS = 5.0
_SANDBOX_KEY = "sandbox"


class RedisInUse(DarkroomError):
    """Workers of another stack use the given Redis, and would send to real providers what the sandbox should answer."""


class Stack:
    """Everything that a job needs, started and stopped with the context.

    `given` holds settings (as environment variables) that take precedence over the stack's own; other settings of Darkroom in
    the environment are ignored. A provider whose key is given is called for real, the sandbox plays the others.
    Raises PortUnavailable before anything is started, then DidNotStart, RedisInUse and SettingsError.
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
        #: the providers that are called for real
        self.real = tuple(name for name in providers.names() if self.given.get(f"{name.upper()}_API_KEY"))
        #: the providers that the sandbox plays
        self.played = tuple(name for name in SANDBOXED if name not in self.real)
        self.environ: dict[str, str] = {}
        self._receiver_port = port or free_port()
        self._sandbox_port = free_port()
        self._sandbox_options = tuple(sandbox_options)
        self._processes = Processes(self.folder / "logs")
        self._exit = ExitStack()

    # --- starting and stopping ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        for port in (self._receiver_port, self._sandbox_port):
            check_port(port)
        make_private_folder(self.folder)
        with ExitStack() as undo:
            undo.enter_context(self._processes)
            self.environ = self._children_environ(self._start_redis())
            if self.played and (others := self._workers()):
                raise RedisInUse(
                    f"{len(others)} other worker(s) use the Redis of DARKROOM_REDIS_URL and could send jobs to real providers "
                    "that the sandbox should answer; unset DARKROOM_REDIS_URL to start a private Redis"
                )
            self._start_the_rest()
            self._exit = undo.pop_all()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._exit.close()

    def restart_dead(self) -> tuple[str, ...]:
        """Start each process again that ended by itself; returns their names. Call it every second or so."""
        dead = [process for process in self._processes.running if not process.is_alive]
        for process in dead:
            self._processes.kill(process)
            self._processes.start(process.command)
        return tuple(process.name for process in dead)

    def process(self, name: str) -> Process:
        """The running child of this name: `redis`, `sandbox`, `receiver` or `worker`."""
        return next(process for process in self._processes.running if process.name == name)

    def kill(self, name: str) -> None:
        """Send SIGKILL to one child."""
        self._processes.kill(self.process(name))

    def start_worker(self, name: str = "worker") -> Process:
        """Start one more worker; returns when it has registered in Redis."""
        known = self._workers()
        worker = self._processes.start(worker_command(self.environ, self.folder, name))
        worker.await_ready(lambda: bool(self._workers() - known))
        return worker

    def delete_all_but_images(self) -> None:
        """Delete everything in the folder except the stored images; call it after the end of the stack."""
        for entry in self.folder.iterdir():
            if entry == self.images:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _start_redis(self) -> str:
        if isinstance(self.source, redis.External):
            if not redis.is_up(self.source.url):
                raise DidNotStart(f"no Redis answers at {without_password(self.source.url)} (DARKROOM_REDIS_URL)")
            return self.source.url
        _, url = redis.start(self._processes, self.source, self.folder / "redis")
        return url

    def _start_the_rest(self) -> None:
        """Start sandbox, receiver and worker side by side, then wait for each."""
        sandbox = sandbox_command(self.environ, self.folder, self._sandbox_port, _SANDBOX_KEY, self._sandbox_options)
        played = self._processes.start(sandbox) if self.played else None
        receiver = self._processes.start(receiver_command(self.environ, self.folder, self._receiver_port))
        worker = self._processes.start(worker_command(self.environ, self.folder))
        if played:
            played.await_ready(lambda: _is_ok(f"{self.sandbox_url}/_sandbox/health"))
        receiver.await_ready(lambda: _is_ok(f"{self.url}/readyz"))
        worker.await_ready(lambda: bool(self._workers()))

    def _workers(self) -> frozenset[str]:
        return frozenset(self.darkroom.repository.workers())

    def _children_environ(self, redis_url: str) -> dict[str, str]:
        """What the children get beside our own environment."""
        networks = (self.given.get("DARKROOM_ALLOWED_PRIVATE_NETWORKS", ""), "127.0.0.0/8" if self.played else "")
        own = {
            "DARKROOM_STORAGE_URL": self.images.as_uri(),
            # A real provider cannot call this machine back.
            "DARKROOM_PUBLIC_URL": "" if self.real else self.url,
            "DARKROOM_SECRET_KEYS": load_secret(self.folder / "secret-key"),
            "DARKROOM_API_KEYS": load_secret(self.api_key_file),
            "DARKROOM_SPOOL_DIR": str(self.folder / "spool"),
            "DARKROOM_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}",
            # In the environment, so that the application sees it too: it keeps a share of the threads for callbacks.
            "GRANIAN_BLOCKING_THREADS": str(BLOCKING_THREADS),
        }
        prefixes = (PREFIX, *(f"{name.upper()}_" for name in providers.names()))
        blank = {name: "" for name in environment() if name.startswith(prefixes)}
        fixed = {
            "DARKROOM_REDIS_URL": redis_url,
            # The sandbox serves its results on this machine; workers must be allowed to fetch them.
            "DARKROOM_ALLOWED_PRIVATE_NETWORKS": ",".join(filter(None, networks)),
            **{f"{name.upper()}_BASE_URL": f"{self.sandbox_url}/{name}" for name in self.played},
            **{f"{name.upper()}_API_KEY": _SANDBOX_KEY for name in self.played},
        }
        return {**blank, **own, **self.given, **fixed}

    # --- what it offers -------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL of the receiver."""
        return f"http://{HOST}:{self._receiver_port}"

    @property
    def sandbox_url(self) -> str:
        """The URL of the sandbox; nothing listens there when every provider has a key."""
        return f"http://{HOST}:{self._sandbox_port}"

    @property
    def is_durable(self) -> bool:
        """Whether accepted jobs outlive the stack."""
        return not isinstance(self.source, redis.Fake)

    @property
    def logs(self) -> Path:
        """The folder of the children's logs."""
        return self.folder / "logs"

    @property
    def images(self) -> Path:
        """The folder of the stored images, unless another storage was given."""
        return self.folder / "images"

    @property
    def api_key_file(self) -> Path:
        """The file that holds the bearer key of the HTTP API."""
        return self.folder / "api-key"

    @property
    def settings(self) -> Settings:
        """The settings as the children have them."""
        own = {name.removeprefix(PREFIX).lower(): value for name, value in self.environ.items()}
        named = {name: own[name] for name in Settings.model_fields if own.get(name)}
        return Settings(**{"broker_url": "", "public_url": "", **named})  # type: ignore[arg-type]  # each is text, which Settings parses

    @cached_property
    def darkroom(self) -> Darkroom:
        """A producer bound to this stack."""
        return Darkroom.open(self.settings, patience_seconds=2.0)


def without_password(url: str) -> str:
    """The URL without user and password, as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _is_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
