"""`darkroom up`: the embedded stack, kept running, with the person's own keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click

from .. import providers
from ..embedded.files import make_private_folder, write_env_file
from ..embedded.stack import Stack, without_password
from ..errors import NotPossible
from ..settings import STACK_FILE, STACK_FOLDER, environment, stack_environment
from .console import ending_on_signals, out, table, warn

_LOOK_SECONDS = 1.0


@click.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=STACK_FOLDER, show_default=True)
@click.option("--port", default=8080, show_default=True, help="Of the receiver; 0 takes a free one.")
def up(folder: Path, port: int) -> None:
    """Run everything on this machine until Ctrl-C.

    Vendors whose key is set (..._API_KEY) are called for real, the sandbox plays the others. Other commands find the stack when they
    run in the same folder.
    """
    if stack_environment(folder):
        raise NotPossible(f"a stack runs in {folder} already; stop it first, or choose another --folder")
    make_private_folder(folder)
    _ignore(folder)
    with ending_on_signals(), Stack(folder, _given(), port=port) as stack:
        file = write_env_file(stack.folder, stack.environ)
        try:
            _introduce(stack)
            _keep_up(stack)
        except KeyboardInterrupt:
            out().print("stopping")
        finally:
            file.unlink(missing_ok=True)


def _given() -> dict[str, str]:
    """The settings that the person made: ours, and those of the vendors whose key is set."""
    given = environment()
    keyed = [name.upper() for name in providers.names() if given.get(f"{name.upper()}_API_KEY")]
    prefixes = ("DARKROOM_", *(f"{name}_" for name in keyed))
    return {name: value for name, value in given.items() if name.startswith(prefixes) and value}


def _ignore(folder: Path) -> None:
    """Keeps keys and pictures out of the version control of whatever project this is."""
    (folder / ".gitignore").write_text("*\n")


def _introduce(stack: Stack) -> None:
    if not stack.durable:
        warn("NOT DURABLE: fakeredis stands in for Redis, all jobs are forgotten at the end; install redis-server")
    out().print(table(("", ""), _facts(stack)), soft_wrap=True)
    if not stack.settings.public_url:
        warn("no vendor can call back: set DARKROOM_PUBLIC_URL to where the receiver is reached from outside")


def _facts(stack: Stack) -> Iterator[tuple[str, str]]:
    yield "receiver", stack.url
    yield "bearer key", f"in {_shown(stack.api_key_file)}"
    yield "Redis", without_password(stack.settings.redis_url)
    yield "pictures", stack.settings.storage_url
    yield "logs", _shown(stack.logs)
    played = stack.played
    real = [name for name in providers.names() if name not in played]
    yield "called for real", ", ".join(real) or "nobody: no key is set"
    if played:
        yield "played by the sandbox", f"{', '.join(played)} at {stack.sandbox_url}"
    yield "enqueue", 'darkroom enqueue OPERATION -p prompt="a lake at dawn" -p image_field=@photo.png'
    yield "operations", ", ".join(providers.operation_names())
    yield "follow", "darkroom watch"
    yield "for your application", f"set -a; . {_shown(stack.folder / STACK_FILE)}"
    yield "stop", "Ctrl-C"


def _shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _keep_up(stack: Stack) -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        for name in stack.restart_dead():
            warn(f"the {name} ended by itself and was started again; its log: {_shown(stack.logs / name)}.log")
