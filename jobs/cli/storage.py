"""`darkroom storage init`: create the bucket or the folder, and check it."""

from __future__ import annotations

import click

from ..darkroom import current
from ..storage import rehearse
from .console import print_json


@click.group()
def storage() -> None:
    """Prepare the storage of DARKROOM_STORAGE_URL."""


@storage.command(short_help="Create the bucket or the folder, and check it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def init(as_json: bool) -> None:
    """Create the bucket or the folder unless it exists, then check that it works.

    The check is that of `darkroom doctor`: an object is written twice, read and deleted, and must keep its first content. The
    command can be run again at any time.
    """
    darkroom = current()
    created = darkroom.storage.create()
    rehearse(darkroom.storage)
    url = darkroom.settings.storage_url
    if as_json:
        print_json({"url": url, "created": created})
    else:
        click.echo(f"{url} {'created' if created else 'exists already'}; it can be written and read")
