"""`python -m tests.benchmarks`: measure Darkroom and what it is compared with, side by side, and print one table."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import callbacks, durability, enqueue, in_flight, parked, whole_job
from .harness import Row, bench

FIGURES: Mapping[str, ModuleType] = {
    "enqueue": enqueue,
    "in-flight": in_flight,
    "whole-job": whole_job,
    "callbacks": callbacks,
    "parked": parked,
    "durability": durability,
}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(FIGURES)), help="Measure only this figure; repeatable.")
@click.option("--quick", is_flag=True, help="Fewer rounds and smaller sizes: rough figures in a minute or two.")
def main(only: Sequence[str], quick: bool) -> None:
    """Measure Darkroom and what it is compared with, side by side."""
    console = Console(width=None if Console().is_terminal else 160)
    rows = measure([name for name in FIGURES if not only or name in only], console, quick=quick)
    console.print(table(rows))


def measure(names: Sequence[str], console: Console, *, quick: bool) -> list[Row]:
    """Measure these figures, with a progress bar, and return their rows."""
    columns = (TextColumn("{task.description:<60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[Row] = []
    with Progress(*columns, console=console) as progress, tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        for name in names:
            task = progress.add_task(name, total=FIGURES[name].STEPS + 1)

            def say(what: str, task: object = task, name: str = name) -> None:
                progress.update(task, advance=1, description=f"{name}: {what}")

            with bench(Path(folder) / name, say, quick=quick) as tools:
                rows += FIGURES[name].measure(tools)
            progress.update(task, description=name, completed=FIGURES[name].STEPS + 1)
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The table in Markdown, as it is in the documentation."""
    drawn = Table(box=MARKDOWN)
    for heading in ("figure", "Darkroom", "compared with", "ratio", "target", ""):
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        verdict = {True: "met", False: "missed", None: ""}[row.met]
        drawn.add_row(row.figure, row.ours, row.other, row.ratio, row.target, verdict)
    return drawn


if __name__ == "__main__":
    main()
