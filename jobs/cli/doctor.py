"""`darkroom doctor`: what is configured, what answers, what is missing and the line that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import click
import httpx
from kombu import Connection
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rich.text import Text

from .. import providers
from ..darkroom import Darkroom
from ..embedded.stack import without_password
from ..errors import DarkroomError, SettingsError
from ..settings import Settings, provider_settings
from ..storage import rehearse
from .console import err, out, print_json, table

#: Redis commands that we use came with it
REDIS_FLOOR = (6, 2)
_PATIENCE_SECONDS = 3.0
#: what Redis' configuration should say, and what happens otherwise
_DURABLE: Mapping[str, tuple[str, str]] = {
    "appendonly": ("yes", "jobs are lost when Redis ends"),
    "maxmemory-policy": ("noeviction", "jobs are evicted when memory is short"),
}


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"  #: it works, but not as it should
    BROKEN = "broken"  #: jobs cannot run


_STYLES: Mapping[State, str] = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "red"}


@dataclass(frozen=True)
class Finding:
    """What was found of one thing."""

    name: str
    state: State
    says: str
    #: the line that mends it
    mend: str = ""


Findings = Iterator[Finding]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def doctor(as_json: bool) -> int:
    """Look at everything that jobs need. Exit 1 when something is broken."""
    findings = list(examine())
    broken = any(finding.state is State.BROKEN for finding in findings)
    if as_json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    return 1 if broken else 0


def examine() -> Findings:
    """Everything that was found, in the order in which it should be mended."""
    try:
        settings = Settings.read()
    except SettingsError as error:
        yield Finding("settings", State.BROKEN, str(error), f"export {error.name}=...")
        return
    house = Darkroom.open(settings)
    for look in (_redis, _broker, _storage, _secrets, _receiver, _workers, _providers, _jobs):
        yield from _bordered(look, house)


def _bordered(look: Callable[[Darkroom], Findings], house: Darkroom) -> Findings:
    """The findings of one look; an error that it did not expect is one too."""
    try:
        yield from look(house)
    except DarkroomError as error:
        yield Finding(look.__name__.strip("_"), State.BROKEN, str(error))


# Redis ------------------------------------------------------------------------------------------------------------


def _redis(house: Darkroom) -> Findings:
    url = house.settings.redis_url
    try:
        with Redis.from_url(url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS) as redis:
            redis.ping()
            yield from _redis_facts(redis, without_password(url))
    except RedisError as error:
        says = f"{without_password(url)} does not answer: {type(error).__name__}"
        yield Finding("redis", State.BROKEN, says, "export DARKROOM_REDIS_URL=redis://127.0.0.1:6379/0")


def _redis_facts(redis: Redis, shown: str) -> Findings:
    try:
        version = str(redis.info("server")["redis_version"])
    except ResponseError:
        yield Finding(
            "redis", State.WARNING, f"{shown} does not tell its version: it is no real Redis, nothing is durable"
        )
        return
    if _version(version) < REDIS_FLOOR:
        floor = ".".join(map(str, REDIS_FLOOR))
        yield Finding("redis", State.BROKEN, f"{shown} is Redis {version}, older than {floor}", "upgrade Redis")
        return
    yield Finding("redis", State.OK, f"{shown} answers: Redis {version}")
    yield from _redis_durability(redis)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _redis_durability(redis: Redis) -> Findings:
    for name, (wanted, harm) in _DURABLE.items():
        try:
            value = redis.config_get(name).get(name)
        except ResponseError:
            says = f"this Redis hides its configuration; see to it that {name} is {wanted}, else {harm}"
            yield Finding("durability", State.WARNING, says)
            continue
        if value != wanted:
            mend = f"redis-cli config set {name} {wanted}  # and the same in redis.conf"
            yield Finding("durability", State.WARNING, f"{name} is {value}: {harm}", mend)


def _broker(house: Darkroom) -> Findings:
    if house.settings.broker_is_redis:
        yield Finding("broker", State.OK, "the same Redis")
        return
    shown = without_password(house.settings.broker)
    try:
        with Connection(house.settings.broker, connect_timeout=_PATIENCE_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=_PATIENCE_SECONDS)
        yield Finding("broker", State.OK, f"{shown} answers")
    except (OperationalError, OSError) as error:
        says = f"{shown} does not answer: {type(error).__name__}"
        yield Finding(
            "broker", State.BROKEN, says, "unset DARKROOM_BROKER_URL  # the Redis of the records serves as broker too"
        )


# Storage and HTTP -------------------------------------------------------------------------------------------------


def _storage(house: Darkroom) -> Findings:
    url = house.settings.storage_url
    mend = "export DARKROOM_STORAGE_URL=s3://bucket/prefix  # and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3"
    try:
        house.storage.check()
        rehearse(house.storage)
        yield Finding("storage", State.OK, f"{url} writes, reads and writes only once")
    except DarkroomError as error:
        yield Finding("storage", State.BROKEN, f"{url}: {error}", mend)


def _secrets(house: Darkroom) -> Findings:
    make = "$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')"
    if house.settings.public_url and not house.settings.secret_keys:
        yield Finding(
            "secret keys", State.BROKEN, "none, so no callback can be signed", f"export DARKROOM_SECRET_KEYS={make}"
        )
    if not house.settings.api_keys:
        yield Finding(
            "api keys", State.WARNING, "none: the HTTP API refuses everybody", f"export DARKROOM_API_KEYS={make}"
        )


def _receiver(house: Darkroom) -> Findings:
    url = house.settings.public_url
    if not url:
        says = "no public URL: nothing can call back, operations run in their sync or polled mode"
        yield Finding("receiver", State.WARNING, says, "export DARKROOM_PUBLIC_URL=https://darkroom.example.com")
        return
    trouble = _health(url)
    if trouble is None:
        yield Finding("receiver", State.OK, f"{url} answers")
    else:
        yield Finding(
            "receiver",
            State.BROKEN,
            f"{url}/healthz {trouble}",
            "granian --interface wsgi --factory webhooks:create_app",
        )


def _health(url: str) -> str | None:
    try:
        answer = httpx.get(f"{url}/healthz", timeout=_PATIENCE_SECONDS)
    except httpx.HTTPError as error:
        return f"does not answer: {type(error).__name__}"
    return None if answer.is_success else f"answers {answer.status_code}"


# Who works --------------------------------------------------------------------------------------------------------


def _workers(house: Darkroom) -> Findings:
    workers = house.repository.workers()
    if not workers:
        yield Finding(
            "workers", State.BROKEN, "none is alive: jobs wait until their deadline", "celery -A worker worker"
        )
        return
    hosts = ", ".join(sorted(str(worker.get("hostname", "?")) for worker in workers.values()))
    yield Finding("workers", State.OK, f"{len(workers)} alive: {hosts}")


def _providers(house: Darkroom) -> Findings:
    served = house.repository.served_operations()
    for name in providers.names():
        yield _provider(name, served)


def _provider(name: str, served: frozenset[str]) -> Finding:
    mine = set(providers.provider(name).operations)
    variable = f"{name.upper()}_API_KEY"
    key = f"its key is {'set' if _has_key(name) else 'not set'} here"
    if mine <= served:
        return Finding(name, State.OK, f"workers serve {', '.join(sorted(mine))}; {key}")
    mend = f"export {variable}=...  # where the workers run, then restart them"
    return Finding(name, State.WARNING, f"no worker serves {', '.join(sorted(mine - served))}; {key}", mend)


def _has_key(name: str) -> bool:
    return provider_settings(name).enabled


def _jobs(house: Darkroom) -> Findings:
    count = {name: number for name, number in house.repository.count().items() if number}
    says = ", ".join(f"{number} {name}" for name, number in count.items()) or "none yet"
    yield Finding("jobs", State.OK, says)


# Showing ----------------------------------------------------------------------------------------------------------


def _print(findings: Iterable[Finding]) -> None:
    rows = [
        (finding.name, Text(finding.state.value, style=_STYLES[finding.state]), finding.says) for finding in findings
    ]
    out().print(table(("", "", ""), rows))
    for finding in findings:
        if finding.mend:
            err().print(Text(f"{finding.name}: ", style="bold") + Text(finding.mend), soft_wrap=True)
