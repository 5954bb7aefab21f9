"""The command lines of the stack's own processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import logs
from .ports import HOST
from .processes import Command


def worker_command(environ: Mapping[str, str], folder: Path, name: str = "worker") -> Command:
    """A Celery worker; `name` is the node's name and that of its log."""
    return _python(name, environ, folder, "celery", "-A", "worker", "worker", "--loglevel", "INFO", "-n", f"{name}@%h")


def receiver_command(environ: Mapping[str, str], folder: Path, port: int) -> Command:
    """The receiver under granian."""
    # Request heads are small and arrive at once.
    heads = ["--http", "1", "--http1-header-read-timeout", "10000", "--http1-buffer-size", "65536"]
    # Granian does not stop a child that is not up yet; without a limit it would wait for it forever.
    limit = ["--workers-kill-timeout", "2"]
    address = ["--host", HOST, "--port", str(port)]
    log = ["--log-config", str(logs.GRANIAN_CONFIG)]
    arguments = ["--interface", "wsgi", "--no-ws", *heads, *limit, *log, *address, "--factory", "webhooks:create_app"]
    return _python("receiver", environ, folder, "granian", *arguments)


def sandbox_command(
    environ: Mapping[str, str], folder: Path, port: int, api_key: str, options: Sequence[str] = ()
) -> Command:
    """The sandbox, whose ledger outlives it in `sandbox.journal`; `options` are those of `darkroom sandbox`."""
    state = ["--state", str(folder / "sandbox.journal")]
    arguments = ["--port", str(port), "--api-key", api_key, *state, *options]
    return _python("sandbox", environ, folder, "jobs.sandbox", *arguments)


def _python(name: str, environ: Mapping[str, str], folder: Path, module: str, *arguments: str) -> Command:
    # It does not run in the caller's folder, where a `worker.py` would be imported instead of ours.
    return Command(name, [sys.executable, "-m", module, *arguments], environ, folder)
