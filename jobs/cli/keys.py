"""`darkroom keys`: who may use the HTTP API."""

from __future__ import annotations

import click

from ..settings import current
from ..state.api_keys import ApiKey, KeyStore, Scope
from .console import print_json


@click.group()
def keys() -> None:
    """API keys of the HTTP API, beside those of DARKROOM_API_KEYS."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it allows; may be given again. Without: jobs:read and jobs:write.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the key as JSON.")
def new(name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a key and print it, this once: only its digest is kept.

    A key sees the jobs of its NAME. Another key of the same name sees the same jobs: make it, change over, revoke the old one.
    """
    key, secret = _store().new(name, scopes or (Scope.JOBS_READ, Scope.JOBS_WRITE))
    if as_json:
        print_json({**_shown(key), "key": secret})
    else:
        click.echo(secret)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
def list_keys(as_json: bool) -> None:
    """List the keys, without their secrets."""
    found = [_shown(key) for key in _store().all()]
    if as_json:
        print_json(found)
        return
    for key in found:
        click.echo(f"{key['id']}  {key['created_at']}  {key['name']}  {','.join(key['scopes'])}")


@keys.command()
@click.argument("name_or_id", metavar="NAME|ID")
def revoke(name_or_id: str) -> int:
    """Revoke a key by its id, or all of a name. Receivers refuse them within seconds."""
    gone = _store().revoke(name_or_id)
    click.echo(f"revoked {', '.join(key.id for key in gone)}" if gone else f"no key {name_or_id}")
    return 0 if gone else 1


def _store() -> KeyStore:
    return KeyStore.open(current().redis_url)


def _shown(key: ApiKey) -> dict[str, str | list[str]]:
    created = key.created_at.isoformat(timespec="seconds")
    return {"id": key.id, "name": key.name, "scopes": sorted(key.scopes), "created_at": created}
