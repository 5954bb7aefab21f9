"""The settings: the only reader of the environment.

Every setting has a name in the environment and a default that is right for one machine. A malformed one raises
`SettingsError` with its name and an example, before anything starts.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from . import providers
from .errors import SettingsError
from .job import FINAL, Status

_PREFIX = "DARKROOM_"

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(_SECONDS)})")

Network = IPv4Network | IPv6Network


def _commas(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_commas)]


class Settings(BaseSettings):
    """What the environment says, checked and frozen. Each field is the variable `DARKROOM_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", repr=False, examples=["redis://127.0.0.1:6379/0"])
    #: where Celery's messages go; the same Redis unless set
    broker_url: str = Field(default="", repr=False, examples=["amqp://guest@rabbitmq//"])
    storage_url: str = Field(
        default_factory=lambda: f"file://{Path.home() / '.local/share/darkroom'}", examples=["s3://bucket/prefix"]
    )
    #: where providers reach `/webhooks`; without it nothing calls back
    public_url: str = Field(default="", examples=["https://darkroom.example.com"])
    #: the first signs callback tokens and file URLs, all verify
    secret_keys: Secrets = Field(default=(), examples=["a-long-random-string,the-one-before"])
    #: bearer keys of the HTTP API; without any it refuses everything
    api_keys: Secrets = Field(default=(), examples=["key-one,key-two"])
    #: requests to the HTTP API that each API key may make; without it there is no limit
    rate_limit: str = Field(default="", examples=["600/minute"])
    #: where jobs tell of themselves, unless a job says otherwise
    webhook_url: str = Field(default="", repr=False, examples=["https://app.example.com/darkroom"])
    #: the statuses of which they tell
    webhook_events: Annotated[tuple[Status, ...], NoDecode] = Field(default=FINAL, examples=["succeeded,failed"])
    #: Standard Webhooks secrets that sign what we send; all of them sign, so that receivers can change over
    webhook_secrets: Secrets = Field(default=(), examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    #: networks that downloads and deliveries may reach although they are private, by plain http too
    allowed_private_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(), examples=["127.0.0.0/8,10.1.0.0/16"]
    )
    #: how long records, idempotency keys and staged inputs are kept after the end
    retention_seconds: int = Field(default=7 * 86400, ge=60, examples=["604800"])
    #: where paid results and accepted callbacks wait for a store that is away
    spool_dir: Path = Field(
        default_factory=lambda: Path.home() / ".local/share/darkroom/spool", examples=["/var/spool/darkroom"]
    )
    #: the most that may wait there
    spool_max_bytes: int = Field(default=10 << 30, ge=1 << 20, examples=["10737418240"])
    #: provider calls that one worker process keeps open at once
    max_calls_in_flight: int = Field(default=1000, ge=1, le=100_000, examples=["1000"])
    #: bytes of images that one worker process holds at once
    max_bytes_in_flight: int = Field(default=512 << 20, ge=64 << 20, examples=["536870912"])
    #: the largest image that is taken from a provider
    max_image_bytes: int = Field(default=64 << 20, ge=1 << 10, examples=["67108864"])
    #: replicas of Redis that must have a write before it counts; 0: the primary alone
    redis_wait_replicas: int = Field(default=0, ge=0, le=16, examples=["1"])
    #: how the worker and the receiver write their log: "text", or "json" for one JSON object a line
    log_format: Literal["text", "json"] = Field(default="text", examples=["json"])
    #: how long a worker may be silent before it ends itself for its supervisor to restart
    watchdog_seconds: float = Field(default=60.0, ge=5, le=3600, examples=["60"])
    #: how long a stopping worker waits for what is in flight
    drain_seconds: float = Field(default=30.0, ge=0, le=3600, examples=["30"])

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
        parts = urlsplit(value)
        if parts.scheme not in {"redis", "rediss"} or parts.port == 0:
            raise ValueError("is no Redis URL (redis:// or rediss://)")
        return value

    @field_validator("broker_url")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        if value and not urlsplit(value).scheme:
            raise ValueError("is no URL of a broker")
        return value

    @field_validator("storage_url")
    @classmethod
    def _is_storage(cls, value: str) -> str:
        parts = urlsplit(value)
        if (parts.scheme, bool(parts.netloc)) not in {("s3", True), ("file", False)}:
            raise ValueError("is neither s3://bucket/prefix nor file:///folder")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if value and not _RATE.fullmatch(value):
            raise ValueError("is no rate: a number of requests, a slash, and second, minute, hour or day")
        return value

    @field_validator("webhook_events", mode="before")
    @classmethod
    def _are_statuses(cls, value: Any) -> Any:
        if strange := set(named := _commas(value)) - set(Status):
            raise ValueError(f"holds {', '.join(sorted(strange))}; allowed: {', '.join(Status)}")
        return named

    @field_validator("webhook_secrets")
    @classmethod
    def _are_webhook_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            _check_webhook_secret(secret.get_secret_value())
        return value

    @field_validator("public_url", "webhook_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError("is no http(s) URL")
        return value.rstrip("/")

    @property
    def broker(self) -> str:
        return self.broker_url or _as_broker(self.redis_url)

    @property
    def broker_is_redis(self) -> bool:
        """Whether broker and record are one Redis database, so that one script writes both."""
        return self.broker_url in ("", self.redis_url)

    @property
    def rate(self) -> tuple[int, int] | None:
        """How many requests an API key may make in how many seconds; None: any number."""
        found = _RATE.fullmatch(self.rate_limit)
        return (int(found[1]), _SECONDS[found[2]]) if found else None

    def signing_keys(self) -> tuple[str, ...]:
        """The secret keys, the signing one first. Raises SettingsError when there is none."""
        if not self.secret_keys:
            raise SettingsError("DARKROOM_SECRET_KEYS", "is not set", "a-long-random-string")
        return tuple(key.get_secret_value() for key in self.secret_keys)

    @property
    def callback_base(self) -> str | None:
        """The URL below which callbacks come in, or None when none can. Raises SettingsError without a secret key."""
        return f"{self.public_url}/webhooks" if self.public_url and self.signing_keys() else None

    @classmethod
    def read(cls) -> Self:
        """The settings of the environment. Raises SettingsError for the first malformed one."""
        try:
            return cls()
        except ValidationError as error:
            raise _settings_error(cls, _PREFIX, error) from None


class ProviderSettings(BaseModel):
    """What a worker needs of one provider: `<NAME>_API_KEY`, `<NAME>_BASE_URL` and the provider's own options."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    api_key: SecretStr = SecretStr("")
    base_url: str = Field(examples=["https://api.example.com"])
    options: Any = None

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname:
            raise ValueError("is no http(s) URL")
        return value.rstrip("/")

    @property
    def enabled(self) -> bool:
        return bool(self.api_key.get_secret_value())


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
    """The providers whose key is set."""
    found = {name: provider_settings(name, environ) for name in providers.names()}
    return {name: settings for name, settings in found.items() if settings.enabled}


def current() -> Settings:
    """The settings of the environment as it is now; read again only when it changed."""
    return _read(tuple(map(_TABLE.get, _NAMES)))


@lru_cache(maxsize=8)
def _read(_values: tuple[Any, ...]) -> Settings:
    return Settings.read()


def _as_broker(redis_url: str) -> str:
    """The same database as Celery spells it, which knows no `db` in the query."""
    parts = urlsplit(redis_url)
    query = dict(parse_qsl(parts.query))
    database = query.pop("db", None)
    if database is None:
        return redis_url
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", urlencode(query), ""))


def _check_webhook_secret(secret: str) -> None:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("holds a secret that is not whsec_ and the base64 of 24 to 64 bytes")


#: the table behind `os.environ`, and our names as its keys: every enqueue looks whether something changed, and through
#: `os.environ` that takes longer than writing the job's record
_TABLE: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_NAMES = tuple(os.environ.encodekey(_PREFIX + name.upper()) for name in Settings.model_fields)


def _settings_error(model: type[BaseModel], prefix: str, error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    field = str(first["loc"][0])
    examples = model.model_fields[field].examples or [model.model_fields[field].default]
    problem = first["msg"].removeprefix("Value error, ")
    return SettingsError(f"{prefix}{field.upper()}", problem, str(examples[0]))
