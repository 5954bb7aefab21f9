"""Writes `docs/reference/settings.md` from the fields of `Settings` and of the providers' options."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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

S3 is configured with the standard variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and
`AWS_ENDPOINT_URL_S3`.

This page is written by `make docs` from the code.

## Darkroom
"""


def written(shown: Collection[str]) -> str:
    """The page, with the settings of these providers."""
    return "".join((_HEAD, *_table("DARKROOM_", Settings.model_fields), *_providers(shown)))


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
