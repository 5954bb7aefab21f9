"""`darkroom`: the command line. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import click

from ..errors import ChargePossible, DarkroomError, InvalidRequest, SettingsError, Unavailable, did_you_mean
from .console import complain, note

#: each command and where it is defined; a command is imported when it is used
_COMMANDS: Mapping[str, str] = {
    "demo": "jobs.cli.demo:demo",
    "up": "jobs.cli.up:up",
    "operations": "jobs.cli.operations:operations",
    "enqueue": "jobs.cli.enqueue:enqueue",
    "get": "jobs.cli.get:get",
    "watch": "jobs.cli.watch:watch",
    "list": "jobs.cli.list_jobs:list_jobs",
    "cancel": "jobs.cli.cancel:cancel",
    "retry": "jobs.cli.retry:retry",
    "deliveries": "jobs.cli.deliveries:deliveries",
    "redeliver": "jobs.cli.redeliver:redeliver",
    "keys": "jobs.cli.keys:keys",
    "storage": "jobs.cli.storage:storage",
    "providers": "jobs.cli.providers:providers_group",
    "doctor": "jobs.cli.doctor:doctor",
    "sandbox": "jobs.sandbox.__main__:main",
}
#: errors of writing our output: its reader has ended, or its disk is full or fails
_OUTPUT_LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)
#: these start their own Redis, or need none
_SELF_CONTAINED = ("demo", "up", "operations", "sandbox")


class _Commands(click.Group):
    """The commands in their order, each imported when it is used, so that `get` does not load what `demo` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if hint := args[0] not in _COMMANDS and did_you_mean(args[0], _COMMANDS):
            raise click.UsageError(f"no command is named {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("darkroom"), prog_name="darkroom")
@click.pass_context
def darkroom(context: click.Context) -> None:
    """An asynchronous image-job queue that never buys the same image twice.

    Start with `darkroom demo`: everything on this machine, no key needed.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    elif context.invoked_subcommand not in _SELF_CONTAINED:
        _hide_secrets()


def _hide_secrets() -> None:
    """Redact secrets in what libraries log, as a worker does, and say which stack is used."""
    from .. import logs
    from ..settings import STACK_FOLDER, Settings, environment, stack_environment

    if not environment().get("DARKROOM_REDIS_URL") and stack_environment():
        note(f"using the stack that runs in {STACK_FOLDER}")
    try:
        logs.install(logs.secrets_of(Settings.read(), environment()))
    except SettingsError:
        logs.install()  # the command itself reports the setting if it needs it


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code: 1 when it failed, 2 when the command line or a setting is wrong."""
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
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        complain(error.format_message(), hint=f"{context.command_path} --help" if context else "")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        return 130
    except OSError as error:
        if error.errno not in _OUTPUT_LOST or error.filename:
            raise
        # Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            complain(f"the output could not be written: {error.strerror}")
        return 1


def main() -> None:
    """The script `darkroom`."""
    sys.exit(run(sys.argv[1:]))
