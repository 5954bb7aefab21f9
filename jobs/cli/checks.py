"""The checks of `darkroom doctor`: each finding says what is wrong, and the command that fixes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import httpx
from kombu import Connection
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from .. import providers
from ..darkroom import Darkroom
from ..embedded.stack import without_password
from ..errors import DarkroomError, SettingsError
from ..settings import Settings, provider_settings
from ..storage import rehearse

#: the oldest Redis that has all commands that we use
OLDEST_REDIS = (6, 2)
#: how long a server may take to answer, in seconds
_PATIENCE_SECONDS = 3.0
_NEW_SECRET = "$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')"  # noqa: S105 - a command, not a secret
#: settings of Redis: the value they should have, and what happens otherwise
_DURABLE: Mapping[str, tuple[str, str]] = {
    "appendonly": ("yes", "jobs are lost when Redis ends"),
    "maxmemory-policy": ("noeviction", "jobs are evicted when memory is short"),
}


class State(StrEnum):
    """How well something works."""

    OK = "ok"
    WARNING = "warning"  #: jobs run, but something should be changed
    BROKEN = "broken"  #: jobs cannot run


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    state: State
    message: str
    #: the command that fixes it; empty where no command does
    fix: str = ""


Findings = Iterator[Finding]
Check = Callable[[Darkroom], Findings]


def run_checks() -> Findings:
    """All findings, in the order in which they should be fixed."""
    try:
        settings = Settings.read()
    except SettingsError as error:
        yield Finding(
            "settings", State.BROKEN, f"{error.name}: {error.problem}", f"export {error.name}={error.example}"
        )
        return
    darkroom = Darkroom.open(settings)
    for name, check in CHECKS.items():
        try:
            yield from check(darkroom)
        except DarkroomError as error:
            yield Finding(name, State.BROKEN, str(error))


def check_redis(darkroom: Darkroom) -> Findings:
    """Redis answers, is recent enough, and keeps jobs when it ends."""
    shown = without_password(darkroom.settings.redis_url)
    connection = Redis.from_url(
        darkroom.settings.redis_url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS
    )
    try:
        with connection as redis:
            redis.ping()
            try:
                version = str(redis.info("server")["redis_version"])
            except ResponseError:
                yield Finding("redis", State.WARNING, f"{shown} does not report its version, so it is not durable")
                return
            if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_REDIS:
                oldest = ".".join(map(str, OLDEST_REDIS))
                message = f"{shown} is Redis {version}, older than {oldest}"
                yield Finding("redis", State.BROKEN, message, f"upgrade Redis to {oldest} or later")
                return
            yield Finding("redis", State.OK, f"{shown} answers, Redis {version}")
            yield from _check_durability(redis)
    except RedisError as error:
        message = f"{shown} does not answer ({type(error).__name__})"
        yield Finding("redis", State.BROKEN, message, "export DARKROOM_REDIS_URL=redis://127.0.0.1:6379/0")


def _check_durability(redis: Redis) -> Findings:
    for name, (wanted, harm) in _DURABLE.items():
        fix = f"redis-cli config set {name} {wanted}  # and the same in redis.conf"
        try:
            value = redis.config_get(name).get(name)
        except ResponseError:
            message = f"this Redis hides its configuration; unless {name} is {wanted}, {harm}"
            yield Finding("durability", State.WARNING, message)
            continue
        if value != wanted:
            yield Finding("durability", State.WARNING, f"{name} is {value}, so {harm}", fix)


def check_broker(darkroom: Darkroom) -> Findings:
    """The broker of Celery answers."""
    if darkroom.settings.broker_is_redis:
        yield Finding("broker", State.OK, "the same Redis")
        return
    shown = without_password(darkroom.settings.broker)
    try:
        with Connection(darkroom.settings.broker, connect_timeout=_PATIENCE_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=_PATIENCE_SECONDS)
        yield Finding("broker", State.OK, f"{shown} answers")
    except (OperationalError, OSError) as error:
        message = f"{shown} does not answer ({type(error).__name__})"
        fix = "unset DARKROOM_BROKER_URL  # then the Redis of the jobs is the broker too"
        yield Finding("broker", State.BROKEN, message, fix)


def check_storage(darkroom: Darkroom) -> Findings:
    """The storage can be written, and keeps what was written first."""
    url = darkroom.settings.storage_url
    try:
        darkroom.storage.check()
        rehearse(darkroom.storage)
        yield Finding("storage", State.OK, f"{url} can be written and read, and writes each object once")
    except DarkroomError as error:
        elsewhere = "export DARKROOM_STORAGE_URL=s3://bucket/prefix  # or file:///folder, and the AWS_* variables"
        fix = "darkroom storage init" if "`darkroom storage init`" in str(error) else elsewhere
        yield Finding("storage", State.BROKEN, str(error), fix)


def check_secrets(darkroom: Darkroom) -> Findings:
    """Callbacks can be signed, and the HTTP API has a key."""
    if darkroom.settings.public_url and not darkroom.settings.secret_keys:
        message = "DARKROOM_SECRET_KEYS is not set, so providers cannot call back"
        yield Finding("secret keys", State.BROKEN, message, f"export DARKROOM_SECRET_KEYS={_NEW_SECRET}")
    if not darkroom.settings.api_keys:
        message = "DARKROOM_API_KEYS is not set, so only keys of `darkroom keys new` can use the HTTP API"
        yield Finding("api keys", State.WARNING, message, f"export DARKROOM_API_KEYS={_NEW_SECRET}")


def check_receiver(darkroom: Darkroom) -> Findings:
    """Providers can reach the receiver."""
    url = darkroom.settings.public_url
    if not url:
        message = "DARKROOM_PUBLIC_URL is not set: providers cannot call back, and operations run without callbacks"
        fix = "export DARKROOM_PUBLIC_URL=https://darkroom.example.com"
        yield Finding("receiver", State.WARNING, message, fix)
        return
    try:
        response = httpx.get(f"{url}/healthz", timeout=_PATIENCE_SECONDS)
        problem = "" if response.is_success else f"answers {response.status_code}"
    except httpx.HTTPError as error:
        problem = f"does not answer ({type(error).__name__})"
    if problem:
        fix = "granian --interface wsgi --factory webhooks:create_app"
        yield Finding("receiver", State.BROKEN, f"{url}/healthz {problem}", fix)
    else:
        yield Finding("receiver", State.OK, f"{url} answers")


def check_workers(darkroom: Darkroom) -> Findings:
    """At least one worker runs."""
    workers = darkroom.repository.workers()
    if workers:
        hosts = ", ".join(sorted(str(worker.get("hostname", "?")) for worker in workers.values()))
        yield Finding("workers", State.OK, f"{len(workers)} running: {hosts}")
    else:
        message = "no worker is running, so jobs wait until their deadline"
        yield Finding("workers", State.BROKEN, message, "celery -A worker worker")


def check_providers(darkroom: Darkroom) -> Findings:
    """Workers serve the operations of each provider."""
    served = darkroom.repository.served_operations()
    for name in providers.names():
        operations = set(providers.provider(name).operations)
        has_key = "set" if provider_settings(name).is_enabled else "not set"
        variable = f"{name.upper()}_API_KEY"
        if operations <= served:
            message = f"workers serve {', '.join(sorted(operations))}; {variable} is {has_key} here"
            yield Finding(name, State.OK, message)
        else:
            message = f"no worker serves {', '.join(sorted(operations - served))}; {variable} is {has_key} here"
            fix = f"export {variable}=...  # where the workers run, then restart them"
            yield Finding(name, State.WARNING, message, fix)
    for name, sentence in providers.faults().items():
        yield Finding(name, State.BROKEN, sentence)


def check_jobs(darkroom: Darkroom) -> Findings:
    """How many jobs there are, by status."""
    counts = [f"{number} {name}" for name, number in darkroom.repository.count().items() if number]
    yield Finding("jobs", State.OK, ", ".join(counts) or "none yet")


#: the checks by the name of their findings
CHECKS: Mapping[str, Check] = {
    "redis": check_redis,
    "broker": check_broker,
    "storage": check_storage,
    "secrets": check_secrets,
    "receiver": check_receiver,
    "workers": check_workers,
    "providers": check_providers,
    "jobs": check_jobs,
}
