"""`python -m tests.benchmarks`: measure Darkroom and what it is compared with, side by side, and print one table."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import callbacks, durability, enqueue, first_byte, idle_worker, in_flight, parked, rate, waiting, whole_job
from .harness import Row, bench

FIGURES: Mapping[str, ModuleType] = {
    "enqueue": enqueue,
    "in-flight": in_flight,
    "whole-job": whole_job,
    "rate": rate,
    "first-byte": first_byte,
    "idle-worker": idle_worker,
    "callbacks": callbacks,
    "parked": parked,
    "waiting": waiting,
    "durability": durability,
}
#: a figure whose ratios are too bad is measured so many times before the run fails: a busy machine is noisy
TRIES = 3


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(FIGURES)), help="Measure only this figure; repeatable.")
@click.option("--quick", is_flag=True, help="Fewer rounds and smaller sizes: rough figures in a minute or two.")
@click.option(
    "--check",
    is_flag=True,
    help="Fail when Darkroom is less than half as fast as it was, compared with the other side, three times in a row.",
)
def main(only: Sequence[str], quick: bool, check: bool) -> None:
    """Measure Darkroom and what it is compared with, side by side."""
    console = Console(width=None if Console().is_terminal else 160)
    names = [name for name in FIGURES if not only or name in only]
    rows = measure(names, console, quick=quick, tries=TRIES if check else 1)
    console.print(table(rows))
    if check and (slow := [row.figure for row in rows if row.half_as_fast]):
        sys.exit("less than half as fast as it was: " + "; ".join(slow))


def measure(names: Sequence[str], console: Console, *, quick: bool, tries: int = 1) -> list[Row]:
    """Measure these figures, with a progress bar, and return their rows; up to `tries` times where they are too slow."""
    columns = (TextColumn("{task.description:<60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[Row] = []
    with Progress(*columns, console=console) as progress, tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        for name in names:
            for number in range(tries):
                measured = _measure(name, Path(folder) / f"{name}-{number}", progress, quick=quick)
                if not any(row.half_as_fast for row in measured):
                    break
            rows += measured
    return rows


def _measure(name: str, folder: Path, progress: Progress, *, quick: bool) -> Sequence[Row]:
    figure = FIGURES[name]
    task = progress.add_task(name, total=figure.STEPS + 1)

    def say(what: str) -> None:
        progress.update(task, advance=1, description=f"{name}: {what}")

    with bench(folder, say, quick=quick) as tools:
        rows: Sequence[Row] = figure.measure(tools)
    progress.update(task, description=name, completed=figure.STEPS + 1)
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The table in Markdown, as it is in the documentation."""
    drawn = Table(box=MARKDOWN)
    for heading in ("figure", "Darkroom", "compared with", "ratio", "goal", ""):
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        verdict = {True: "met", False: "missed", None: ""}[row.met]
        ratio = "" if row.ratio is None else f"{row.ratio:.3g} x"
        drawn.add_row(row.figure, row.ours, row.other, ratio, row.goal, verdict)
    return drawn


if __name__ == "__main__":
    main()
