"""`darkroom keys`: the API keys of the HTTP API."""

from __future__ import annotations

import click

from ..settings import current
from ..state.api_keys import ApiKey, KeyStore, Scope
from .console import Names, columns, note, print_json, show


@click.group(short_help="Create, list and revoke API keys.")
def keys() -> None:
    """Create, list and revoke API keys, in addition to those of DARKROOM_API_KEYS."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=Names([scope.value for scope in Scope]),
    help="What the key allows; may be repeated. Default: jobs:read and jobs:write.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the key as JSON.")
def new(name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Create a key and print it, this once: only its digest is stored.

    A key sees the jobs of its NAME. To rotate it, create another key of the same name, use that one, and revoke the old one.
    """
    key, secret = _store().create(name, scopes or (Scope.JOBS_READ, Scope.JOBS_WRITE))
    if as_json:
        print_json({**_as_json(key), "key": secret})
    else:
        click.echo(secret)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
def list_keys(as_json: bool) -> None:
    """List the keys, without their secrets."""
    found = [_as_json(key) for key in _store().all()]
    if as_json:
        print_json(found)
    elif found:
        rows = [(str(key["id"]), str(key["created_at"]), str(key["name"]), ",".join(key["scopes"])) for key in found]
        show(columns(rows, ("id", "created", "name", "scopes")))
    else:
        note("there are no keys yet, except those of DARKROOM_API_KEYS; `darkroom keys new NAME` creates one")


@keys.command()
@click.argument("name_or_id", metavar="NAME|ID")
@click.option("--json", "as_json", is_flag=True, help="Print the revoked keys as JSON.")
def revoke(name_or_id: str, as_json: bool) -> int:
    """Revoke a key by its id, or all keys of a name. Receivers refuse them within seconds."""
    revoked = _store().revoke(name_or_id)
    if as_json:
        print_json([_as_json(key) for key in revoked])
    elif revoked:
        click.echo(f"revoked {', '.join(key.id for key in revoked)}")
    else:
        click.echo(f"there is no key {name_or_id}; `darkroom keys list` shows all keys")
    return 0 if revoked else 1


def _store() -> KeyStore:
    return KeyStore.open(current().redis_url)


def _as_json(key: ApiKey) -> dict[str, str | list[str]]:
    created = key.created_at.isoformat(timespec="seconds")
    return {"id": key.id, "name": key.name, "scopes": sorted(key.scopes), "created_at": created}
