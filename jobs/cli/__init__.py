"""`darkroom`: the command line. Results go to stdout, everything said to a person on the way to stderr."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import click

from ..errors import ChargePossible, DarkroomError, InvalidRequest, SettingsError, Unavailable
from .console import complain, note

#: each command and the module that holds it; loaded when it is called for
_COMMANDS: Mapping[str, str] = {
    "demo": "jobs.cli.demo:demo",
    "up": "jobs.cli.up:up",
    "enqueue": "jobs.cli.enqueue:enqueue",
    "get": "jobs.cli.follow:get",
    "watch": "jobs.cli.follow:watch",
    "list": "jobs.cli.follow:list_jobs",
    "cancel": "jobs.cli.act:cancel",
    "retry": "jobs.cli.act:retry",
    "deliveries": "jobs.cli.deliveries:deliveries",
    "redeliver": "jobs.cli.deliveries:redeliver",
    "keys": "jobs.cli.keys:keys",
    "storage": "jobs.cli.storage:storage",
    "providers": "jobs.cli.providers:providers_group",
    "doctor": "jobs.cli.doctor:doctor",
    "sandbox": "jobs.sandbox.__main__:main",
}
#: these bring their own Redis, or need none
_SELF_CONTAINED = ("demo", "up", "sandbox")


class _Commands(click.Group):
    """The commands in their order, each imported when it is called for: `get` does not load what `demo` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("darkroom"), prog_name="darkroom")
@click.pass_context
def darkroom(context: click.Context) -> None:
    """An asynchronous image-job queue that never buys the same picture twice.

    Start with `darkroom demo`: everything on this machine, no key needed.
    """
    if context.invoked_subcommand not in _SELF_CONTAINED:
        _hide_secrets()


def _hide_secrets() -> None:
    """What libraries log of a command passes the same border as a worker's log."""
    from .. import logs
    from ..settings import Settings, environment, stack_environment

    if not environment().get("DARKROOM_REDIS_URL") and stack_environment():
        note("with the stack that runs in .darkroom")
    try:
        logs.install(logs.secrets_of(Settings.read(), environment()))
    except SettingsError:
        logs.install()  # the command itself says what is wrong, where that matters to it


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code: 1 when it did not work, 2 when it was not understood."""
    try:
        return darkroom.main(list(arguments), prog_name="darkroom", standalone_mode=False) or 0
    except ChargePossible as error:
        complain(f"job {error.job_id} was charged or may have been; add --may-charge-again to accept a second charge")
        return 1
    except (InvalidRequest, SettingsError) as error:
        complain(str(error))
        return 2
    except Unavailable as error:
        complain(str(error), hint="darkroom doctor")
        return 1
    except (DarkroomError, TimeoutError) as error:
        complain(str(error))
        return 1
    except click.UsageError as error:
        complain(error.format_message(), hint=f"{error.ctx.command_path} --help" if error.ctx else "")
        return error.exit_code
    except click.ClickException as error:
        complain(error.format_message())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def main() -> None:
    """The script `darkroom`."""
    sys.exit(run(sys.argv[1:]))
