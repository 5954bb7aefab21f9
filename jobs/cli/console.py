"""How the command line prints: results to stdout, everything else to stderr.

On a terminal, text is wrapped between words at its width; URLs, paths and commands are never broken, so that they can be
copied. Into a pipe or a file nothing is wrapped.
"""

from __future__ import annotations

import json
import signal
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from ..job import Status

#: the color of each status
STATUS_STYLES: Mapping[Status, str] = {
    Status.QUEUED: "dim",
    Status.SUBMITTING: "cyan",
    Status.RUNNING: "blue",
    Status.STORING: "magenta",
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.CANCELED: "yellow",
}
#: between two columns
_GAP = "  "

Cell = str | Text


class Names(click.Choice[str]):
    """Names that the help shows and the shell completes. `jobs` checks what is given, with everything else."""

    def convert(self, value: Any, _parameter: click.Parameter | None, _context: click.Context | None) -> str:
        return str(value)


def out() -> Console:
    """The console of results. It is made at each call, so that it writes to the present stdout."""
    return Console(highlight=False)


def err() -> Console:
    """The console of everything else."""
    return Console(stderr=True, highlight=False)


def width_of(console: Console) -> int:
    """The columns of a terminal; without a terminal there is no limit."""
    return console.width if console.is_terminal else sys.maxsize


def show(lines: Iterable[Cell], console: Console | None = None) -> None:
    """Print lines as they are, on stdout by default."""
    console = console or out()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def note(text: str) -> None:
    """Print a dim remark to stderr."""
    _say(text, "dim")


def warn(text: str) -> None:
    """Print a yellow warning to stderr."""
    _say(text, "yellow")


def complain(text: str, hint: str = "") -> None:
    """Print an error to stderr, a line for each of its faults, and a hint where to read on."""
    for line in text.splitlines():
        _say(f"error: {line}", "red")
    if hint:
        note(f"see {hint}")


def _say(text: str, style: str) -> None:
    console = err()
    show((Text(line, style=style) for line in wrapped(text, width_of(console))), console)


def print_json(value: Any) -> None:
    """Print one line of JSON to stdout."""
    click.echo(value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value, ensure_ascii=False))


def wrapped(text: str, width: int, first: str = "", indent: int = 0) -> list[str]:
    """The text in lines, broken between words only; `first` precedes it, further lines are indented."""
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [first.rstrip()]


def facts(rows: Iterable[tuple[str, Cell]], width: int) -> Iterator[Text]:
    """Names and their values in two columns; a long value is wrapped within its column."""
    pairs = [(name, value) for name, value in rows]
    column = max((len(name) for name, _ in pairs), default=0) + len(_GAP)
    for name, value in pairs:
        label = name.ljust(column)
        if isinstance(value, Text):
            yield Text(label, style="bold") + value
            continue
        for line in wrapped(value, width, label, column):
            yield Text.assemble((line[:column], "bold"), line[column:])


def columns(rows: Iterable[Sequence[Cell]], header: Sequence[str] = ()) -> list[Text]:
    """Rows in aligned columns, without trailing blanks."""
    head = [tuple(Text(name, style="bold") for name in header)] if header else []
    cells = [*head, *(tuple(Text(cell) if isinstance(cell, str) else cell for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        line = Text()
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - len(cell)) + _GAP)
        line.rstrip()
        lines.append(line)
    return lines


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that it stops what it started; ignored signals stay ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handled = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
