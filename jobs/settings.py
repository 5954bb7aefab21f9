"""Settings: the only reader of the environment.

Every setting has a name in the environment and a default that is right for one machine. A malformed one raises
`SettingsError` with its name and an example, before anything starts.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import socket
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from . import providers
from .errors import SettingsError, not_one_of
from .job import FINAL, Status

#: the folder of the stack that `darkroom up` runs, and its file with the settings that reach it
STACK_FOLDER, STACK_FILE = Path(".darkroom"), "env"

_PREFIX = "DARKROOM_"

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(_SECONDS)})")

#: what helps where the password of a URL reads like another part of it
_ENCODE = "percent-encode what is special in a password, for example # as %23, / as %2F and @ as %40"

Network = IPv4Network | IPv6Network


def _commas(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_commas)]


class Settings(BaseSettings):
    """The settings of a process, checked and frozen. Each field is the variable `DARKROOM_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        examples=["redis://127.0.0.1:6379/0"],
        description="The Redis that holds the jobs, `redis://` or `rediss://`. Unless it is set, the Redis of the stack "
        "that `darkroom up` runs in this folder.",
    )
    broker_url: str = Field(
        default="",
        repr=False,
        examples=["amqp://guest@rabbitmq//"],
        description="Celery's broker. Default: the same Redis.",
    )
    storage_url: str = Field(
        default_factory=lambda: f"file://{Path.home() / '.local/share/darkroom'}",
        examples=["s3://bucket/prefix"],
        description="Where images are stored: `s3://bucket/prefix` or `file:///folder`.",
    )
    public_url: str = Field(
        default="",
        examples=["https://darkroom.example.com"],
        description="Where providers reach the receiver. Without it no provider calls back; they are polled instead, or hold the connection.",
    )
    secret_keys: Secrets = Field(
        default=(),
        examples=["a-long-random-string,the-one-before"],
        description="Keys of callback tokens and file URLs: the first signs, all verify. The receiver needs one.",
    )
    api_keys: Secrets = Field(
        default=(),
        examples=["key-one,key-two"],
        description="Bearer keys of the HTTP API, in addition to those of `darkroom keys`. Without any key it refuses every request.",
    )
    rate_limit: str = Field(
        default="",
        examples=["600/minute"],
        description="How many requests each API key may make in a second, minute, hour or day. Default: any number.",
    )
    webhook_url: str = Field(
        default="",
        repr=False,
        examples=["https://app.example.com/darkroom"],
        description="Where webhooks about jobs are sent, unless a job has a `webhook_url` of its own. Read where jobs are enqueued.",
    )
    webhook_events: Annotated[tuple[Status, ...], NoDecode] = Field(
        default=FINAL,
        examples=["succeeded,failed"],
        description="The statuses that send a webhook. Read where jobs are enqueued.",
    )
    webhook_secrets: Secrets = Field(
        default=(),
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        description="Standard Webhooks secrets. Each signs every webhook, so that endpoints can change from one to the next.",
    )
    allowed_private_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        examples=["127.0.0.0/8,10.1.0.0/16"],
        description="Private networks that image URLs and webhooks may reach, also by plain http.",
    )
    retention_seconds: int = Field(
        default=7 * 86400,
        ge=60,
        examples=["604800"],
        description="How long a job is kept once it is complete (final, its images stored, its webhooks delivered or given up), in "
        "seconds; applies to jobs that become complete from then on. An idempotency key is kept for the deadline plus this, from the enqueue.",
    )
    spool_dir: Path = Field(
        default_factory=lambda: Path.home() / ".local/share/darkroom/spool",
        examples=["/var/spool/darkroom"],
        description="The folder where paid images and accepted callbacks wait while the storage or Redis is away.",
    )
    spool_max_bytes: int = Field(
        default=10 << 30, ge=1 << 20, examples=["10737418240"], description="The most that waits there, in bytes."
    )
    max_calls_in_flight: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        examples=["1000"],
        description="How many provider calls one worker process keeps open at once.",
    )
    max_bytes_in_flight: int = Field(
        default=512 << 20,
        ge=64 << 20,
        examples=["536870912"],
        description="The most that one worker process holds of images at once, in bytes.",
    )
    max_image_bytes: int = Field(
        default=64 << 20,
        ge=1 << 10,
        examples=["67108864"],
        description="The largest image that is accepted from a provider, in bytes.",
    )
    redis_wait_replicas: int = Field(
        default=0,
        ge=0,
        le=16,
        examples=["1"],
        description="How many replicas of Redis have to confirm a write; 0: none, the primary alone.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        examples=["json"],
        description="How the worker and the receiver write their log: `text`, or `json` for one object a line.",
    )
    watchdog_seconds: float = Field(
        default=60.0,
        ge=5,
        le=3600,
        examples=["60"],
        description="How long a worker may stall before it exits, for its supervisor to restart it, in seconds.",
    )
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        examples=["30"],
        description="How long a stopping worker waits for the calls that are in flight, in seconds.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _trimmed(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator("allowed_private_networks", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        return tuple(ip_network(part, strict=False) for part in _commas(value))

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://")):
            raise ValueError("not a valid Redis URL (redis:// or rediss://)")
        try:
            parts = urlsplit(value)
            is_valid = parts.port != 0
        except ValueError:  # its text quotes a part of the URL, which may be a part of the password
            is_valid = False
        if not is_valid or parts.fragment or "@" in f"{parts.path}{parts.query}":
            raise ValueError(f"not a valid Redis URL; {_ENCODE}")
        return value

    @field_validator("broker_url")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        if value and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
            raise ValueError("not a valid broker URL")
        if "#" in value:
            raise ValueError(f"not a valid broker URL; {_ENCODE}")
        return value

    @field_validator("storage_url")
    @classmethod
    def _is_storage(cls, value: str) -> str:
        parts = urlsplit(value)
        if (parts.scheme, bool(parts.netloc)) not in {("s3", True), ("file", False)}:
            raise ValueError("not a valid storage URL (s3://bucket/prefix or file:///folder)")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if value and not _RATE.fullmatch(value):
            raise ValueError("not a valid rate (a number of requests, a slash, and second, minute, hour or day)")
        return value

    @field_validator("webhook_events", mode="before")
    @classmethod
    def _are_statuses(cls, value: Any) -> Any:
        named = _commas(value)
        if wrong := [name for name in named if name not in tuple(Status)]:
            raise ValueError(not_one_of("", wrong[0], tuple(Status)).message)
        return named

    @field_validator("webhook_secrets")
    @classmethod
    def _are_webhook_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for text in (secret.get_secret_value() for secret in value):
            try:
                key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
            except ValueError:
                key = b""
            if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
                raise ValueError("not a valid webhook secret (whsec_ and the base64 of 24 to 64 bytes)")
        return value

    @field_validator("public_url", "webhook_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError("not a valid http(s) URL")
        return value.rstrip("/")

    @property
    def broker(self) -> str:
        """The URL of the broker as Celery spells it, which does not know a `db` in the query of a Redis URL."""
        parts = urlsplit(self.redis_url)
        query = dict(parse_qsl(parts.query))
        database = query.pop("db", None)
        if self.broker_url or database is None:
            return self.broker_url or self.redis_url
        return urlunsplit((parts.scheme, parts.netloc, f"/{database}", urlencode(query), ""))

    @property
    def broker_is_redis(self) -> bool:
        """Whether broker and records share a Redis database, so that one script writes both."""
        return self.broker_url in ("", self.redis_url)

    @property
    def rate(self) -> tuple[int, int] | None:
        """How many requests an API key may make, in how many seconds; None: any number."""
        found = _RATE.fullmatch(self.rate_limit)
        return (int(found[1]), _SECONDS[found[2]]) if found else None

    def signing_keys(self) -> tuple[str, ...]:
        """The secret keys, the one that signs first. Raises SettingsError when there is none."""
        if not self.secret_keys:
            raise SettingsError("DARKROOM_SECRET_KEYS", "not set", "a-long-random-string")
        return tuple(key.get_secret_value() for key in self.secret_keys)

    @property
    def callback_base(self) -> str | None:
        """The URL below which callbacks arrive; None without a public URL. Raises SettingsError without a secret key."""
        return f"{self.public_url}/webhooks" if self.public_url and self.signing_keys() else None

    @classmethod
    def read(cls) -> Self:
        """The settings of the environment, and of the stack that runs in this folder. Raises SettingsError."""
        stack = {} if os.environ.get("DARKROOM_REDIS_URL") else stack_environment()
        found: dict[str, Any] = {
            name.removeprefix(_PREFIX).lower(): value
            for name, value in stack.items()
            if value and not os.environ.get(name)
        }
        try:
            return cls(**{name: found[name] for name in cls.model_fields.keys() & found.keys()})
        except ValidationError as error:
            raise _settings_error(cls, _PREFIX, error) from None


class ProviderSettings(BaseModel):
    """What a worker needs for one provider: `<NAME>_API_KEY`, `<NAME>_BASE_URL` and the provider's own options."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    #: the key of the account at the provider; empty: this process does not work for the provider
    api_key: SecretStr = SecretStr("")
    #: where its API is
    base_url: str = Field(examples=["https://api.example.com"])
    #: the provider's `Options`
    options: Any = None

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname:
            raise ValueError("not a valid http(s) URL")
        return value.rstrip("/")

    @property
    def is_enabled(self) -> bool:
        """Whether the key is set."""
        return bool(self.api_key.get_secret_value())


def environment() -> dict[str, str]:
    """A copy of the environment, for child processes and for settings that are not Darkroom's own."""
    return dict(os.environ)


def stack_environment(folder: Path = STACK_FOLDER) -> dict[str, str]:
    """The `DARKROOM_` variables of the stack that `darkroom up` runs in this folder; empty where its Redis does not answer."""
    try:
        lines = shlex.split((folder / STACK_FILE).read_text())
    except (OSError, ValueError):
        return {}
    found = dict(line.split("=", 1) for line in lines if line.startswith(_PREFIX) and "=" in line)
    redis = urlsplit(found.get("DARKROOM_REDIS_URL", ""))
    try:
        with socket.create_connection((redis.hostname, redis.port or 6379), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return found if connection.recv(1) in (b"+", b"-") else {}
    except OSError:
        return {}


def redis_setting() -> str:
    """What names the Redis, in words, for an error message."""
    if os.environ.get("DARKROOM_REDIS_URL"):
        return "DARKROOM_REDIS_URL"
    if (STACK_FOLDER / STACK_FILE).is_file():
        return f"{STACK_FOLDER / STACK_FILE} of `darkroom up`"
    return "DARKROOM_REDIS_URL, which is not set,"


def provider_settings(name: str, environ: Mapping[str, str] | None = None) -> ProviderSettings:
    """The settings of one provider. Raises SettingsError for the first malformed one."""
    source = os.environ if environ is None else environ
    provider = providers.provider(name)
    prefix = f"{name.upper()}_"
    given = {
        key: source[prefix + key.upper()] for key in provider.options.model_fields if source.get(prefix + key.upper())
    }
    try:
        options = provider.options.model_validate(given)
    except ValidationError as error:
        raise _settings_error(provider.options, prefix, error) from None
    try:
        return ProviderSettings(
            api_key=SecretStr(source.get(f"{prefix}API_KEY", "").strip()),
            base_url=source.get(f"{prefix}BASE_URL", "").strip() or provider.default_base_url,
            options=options,
        )
    except ValidationError as error:
        raise _settings_error(ProviderSettings, prefix, error) from None


def enabled_providers(environ: Mapping[str, str] | None = None) -> dict[str, ProviderSettings]:
    """The providers whose key is set, by name."""
    found = {name: provider_settings(name, environ) for name in providers.names()}
    return {name: settings for name, settings in found.items() if settings.is_enabled}


def current() -> Settings:
    """The settings of the environment as it is now; read again only after a change."""
    values = tuple(map(_TABLE.get, _NAMES))
    if values[_REDIS]:
        return _read(values, 0, 0)
    try:
        file = (STACK_FOLDER / STACK_FILE).stat()
    except OSError:
        return _read(values, 0, 0)
    return _read(values, file.st_ino, file.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(_values: tuple[Any, ...], _stack_inode: int, _stack_time: int) -> Settings:
    return Settings.read()


#: the table behind `os.environ`, and our names as its keys: each enqueue checks whether a setting has changed, which takes
#: longer through `os.environ` than writing the job's record
_TABLE: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_NAMES = tuple(os.environ.encodekey(_PREFIX + name.upper()) for name in Settings.model_fields)
#: the place of DARKROOM_REDIS_URL in `_NAMES`
_REDIS = list(Settings.model_fields).index("redis_url")


def _settings_error(model: type[BaseModel], prefix: str, error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    field = str(first["loc"][0])
    examples = model.model_fields[field].examples or [model.model_fields[field].default]
    problem = first["msg"].removeprefix("Value error, ").removeprefix("Input ").partition(", unable to ")[0]
    return SettingsError(f"{prefix}{field.upper()}", problem, str(examples[0]))
