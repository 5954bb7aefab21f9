"""How the command line speaks: words of its own to stderr, results to stdout."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..job import Job, Status

STYLES: Mapping[Status, str] = {
    Status.QUEUED: "dim",
    Status.SUBMITTING: "cyan",
    Status.RUNNING: "blue",
    Status.STORING: "magenta",
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.CANCELED: "yellow",
}

#: made when asked for, so that a test's or a pipe's own streams are taken
Cell = str | Text


#: columns where nobody looks: wide enough that no cell of ours folds in a pipe or a log
_PIPE_WIDTH = 250


def out() -> Console:
    """The console of results."""
    return _console(stderr=False)


def err() -> Console:
    """The console of everything else."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def note(words: str) -> None:
    """A dim line to stderr."""
    err().print(Text(words, style="dim"), soft_wrap=True)


def warn(words: str) -> None:
    """A yellow line to stderr."""
    err().print(Text(words, style="yellow"), soft_wrap=True)


def complain(words: str, hint: str = "") -> None:
    """One red line to stderr, and a dim one where to read on."""
    err().print(Text(f"error: {words}", style="red"), soft_wrap=True)
    if hint:
        note(f"see {hint}")


def print_json(value: Any) -> None:
    """One line of JSON to stdout."""
    click.echo(value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value, ensure_ascii=False))


def table(columns: Iterable[str], rows: Iterable[Iterable[Cell]], title: str | None = None) -> Table:
    """A plain table; cells are taken as they are, without markup. The first column never folds, so that ids stay whole."""
    names = list(columns)
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        made.add_column(name, no_wrap=name == names[0], overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def status_cell(job: Job) -> Text:
    """The status in its color."""
    return Text(job.status.value, style=STYLES[job.status])


def seconds_cell(job: Job, now: datetime) -> str:
    """How long the job took, or takes."""
    return f"{((job.finished_at or now) - job.created_at).total_seconds():.1f}"


def images_cell(job: Job) -> str:
    """Images stored of those asked for."""
    return f"{len(job.artifacts)}/{job.images_expected}"


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that it stops what it started; ignored signals stay ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
