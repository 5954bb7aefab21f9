"""Writes `docs/reference/settings.md` from the fields of `Settings` and of the providers' options."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from jobs import providers
from jobs.settings import Settings

from .pages import ROOT

PAGE = ROOT / "docs" / "reference" / "settings.md"

_HEAD = """# Settings

Settings come from the environment. A malformed one stops the process before anything starts, with a message that names it
and shows an example that works. A variable that is empty counts as not set; lists are separated by commas.

Where `DARKROOM_REDIS_URL` is not set and `darkroom up` runs in the current folder, Python and the command line use that
stack: they read its `DARKROOM_` variables from `.darkroom/env`.

This page is written by `make docs` from the code.

## Required in production

The defaults are right for one machine. In production set these; [Rotate keys](../how-to/rotate-keys.md) says how to change a secret later.

| processes | variables |
|---|---|
"""
#: what must be set in production, by the processes that read it
REQUIRED: Mapping[str, Sequence[str]] = {
    "all: your application, workers, receivers": (
        "DARKROOM_REDIS_URL",
        "DARKROOM_STORAGE_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
        "AWS_ENDPOINT_URL_S3",
    ),
    "workers and receivers": ("DARKROOM_SECRET_KEYS", "DARKROOM_PUBLIC_URL", "DARKROOM_SPOOL_DIR"),
    "workers": ("<PROVIDER>_API_KEY", "DARKROOM_WEBHOOK_SECRETS"),
    "receivers": ("DARKROOM_API_KEYS",),
}
#: the headings of the guide that rotates them
_ROTATED = {
    "DARKROOM_REDIS_URL": "the-passwords-of-redis-and-s3",
    "AWS_ACCESS_KEY_ID": "the-passwords-of-redis-and-s3",
    "AWS_SECRET_ACCESS_KEY": "the-passwords-of-redis-and-s3",
    "DARKROOM_SECRET_KEYS": "the-keys-that-sign-callback-urls",
    "<PROVIDER>_API_KEY": "a-providers-api-key",
    "DARKROOM_WEBHOOK_SECRETS": "the-secrets-that-sign-your-webhooks",
    "DARKROOM_API_KEYS": "keys-of-the-http-api",
}
_AFTER_REQUIRED = """
The `AWS_*` variables are the standard ones of S3 clients. `AWS_ENDPOINT_URL_S3` is needed only for a store that is not Amazon's.
`DARKROOM_WEBHOOK_SECRETS` is needed only if webhooks are sent, and `DARKROOM_API_KEYS` only if the HTTP API is used and has no keys of
`darkroom keys`.

## Darkroom
"""


def written(shown: Collection[str]) -> str:
    """The page, with the settings of these providers."""
    required = (f"| {processes} | {', '.join(map(_linked, names))} |\n" for processes, names in REQUIRED.items())
    return "".join((_HEAD, *required, _AFTER_REQUIRED, *_table("DARKROOM_", Settings.model_fields), *_providers(shown)))


def _linked(name: str) -> str:
    """The variable, with a link to the guide that rotates it."""
    anchor = _ROTATED.get(name)
    return f"[`{name}`](../how-to/rotate-keys.md#{anchor})" if anchor else f"`{name}`"


def _providers(shown: Collection[str]) -> Iterator[str]:
    yield "\n## Providers\n\nA worker works for the providers whose key is set in its environment.\n"
    for name in shown:
        provider = providers.provider(name)
        own = {
            "api_key": FieldInfo(default="", description="The key of your account.", examples=["your-secret-key"]),
            "base_url": FieldInfo(
                default=provider.default_base_url,
                description="Where its API is.",
                examples=[provider.default_base_url],
            ),
        }
        yield f"\n### {name}\n"
        yield from _table(f"{name.upper()}_", own | provider.options.model_fields)


def _table(prefix: str, fields: dict[str, FieldInfo]) -> Iterator[str]:
    yield "\n| variable | meaning | default | example |\n|---|---|---|---|\n"
    for name, field in fields.items():
        [example, *_] = field.examples or [""]
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name.upper()}` | {meaning} | {_default(field)} | `{example}` |\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    text = str(value).replace(str(Path.home()), "~").replace("True", "true").replace("False", "false")
    return f"`{text}`" if text else ""
