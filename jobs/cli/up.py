"""`darkroom up`: the embedded stack, kept running, with the keys of the environment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click

from .. import providers
from ..embedded.files import write_env_file
from ..embedded.stack import Stack, without_password
from ..errors import NotPossible
from ..settings import STACK_FILE, STACK_FOLDER, environment, stack_environment
from .console import ending_on_signals, facts, out, show, warn, width_of

#: how often the processes are checked, in seconds
_CHECK_SECONDS = 1.0


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=STACK_FOLDER,
    show_default=True,
    help="Where everything is kept.",
)
@click.option("--port", default=8080, show_default=True, help="The port of the receiver; 0 takes a free one.")
def up(folder: Path, port: int) -> None:
    """Run everything on this machine until Ctrl-C.

    Providers whose key is set (..._API_KEY) are called for real, the sandbox plays the others. Other commands find the stack
    when they run in the same folder.
    """
    if stack_environment(folder):
        raise NotPossible(f"a stack runs in {folder} already; stop it first, or choose another folder with --folder")
    environ = environment()
    keyed = [name.upper() for name in providers.names() if environ.get(f"{name.upper()}_API_KEY")]
    prefixes = ("DARKROOM_", *(f"{name}_" for name in keyed))
    given = {name: value for name, value in environ.items() if name.startswith(prefixes) and value}
    with ending_on_signals(), Stack(folder, given, port=port) as stack:
        file = write_env_file(stack.folder, stack.environ)
        try:
            if not stack.is_durable:
                warn(
                    "NOT DURABLE: fakeredis is used instead of Redis, so all jobs are lost at the end; install redis-server"
                )
            console = out()
            show(facts(_facts(stack), width_of(console)), console)
            if not stack.settings.public_url:
                warn("providers cannot call back: set DARKROOM_PUBLIC_URL to the URL at which they reach the receiver")
            while True:
                time.sleep(_CHECK_SECONDS)
                for name in stack.restart_dead():
                    warn(f"the {name} ended and was started again; its log: {_short(stack.logs / name)}.log")
        except KeyboardInterrupt:
            show(["stopping"])
        finally:
            file.unlink(missing_ok=True)


def _facts(stack: Stack) -> Iterator[tuple[str, str]]:
    yield "receiver", stack.url
    yield "bearer key", f"in {_short(stack.api_key_file)}"
    yield "Redis", without_password(stack.settings.redis_url)
    yield "images", stack.settings.storage_url
    yield "logs", _short(stack.logs)
    yield "called for real", ", ".join(stack.real) or "none: no API key of a provider is set"
    if stack.played:
        yield "sandbox", f"{stack.sandbox_url} plays {', '.join(stack.played)}"
    if unserved := [name for name in providers.names() if name not in (*stack.real, *stack.played)]:
        yield "not available", ", ".join(f"{name} (set {name.upper()}_API_KEY)" for name in unserved)
    yield "operations", ", ".join(providers.operation_names())
    yield "an example", f"darkroom operations {providers.operation_names()[0]}"
    yield "follow jobs", "darkroom watch"
    yield "settings", f"set -a; . {_short(stack.folder / STACK_FILE)}; set +a"
    yield "stop", "Ctrl-C"


def _short(path: Path) -> str:
    """The path relative to the present folder, if it is inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
