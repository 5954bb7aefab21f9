"""Cost as work grows: from 1,000 to 1,000,000 jobs waiting, and from 100 to 5,000 calls in flight.

`python -m tests.benchmarks.growth` prints two tables in Markdown and draws them to `docs/images/growth.svg`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from .harness import HERE, bench, quantile
from .in_flight import InFlight, measure_calls
from .line_chart import Chart, draw
from .waiting import WORKERS, Times, measure_waiting

WAITING, QUICK_WAITING = (1_000, 10_000, 100_000, 1_000_000), (1_000, 2_000)
IN_FLIGHT, QUICK_IN_FLIGHT = (100, 500, 1_000, 2_000, 5_000), (100, 200)
#: where the plot of the documentation is
PLOT = HERE / "docs" / "images" / "growth.svg"


@click.command()
@click.option("--quick", is_flag=True, help="Two small sizes of each.")
@click.option("--plot", type=click.Path(path_type=Path), default=PLOT, help="The SVG to write.")
def main(quick: bool, plot: Path) -> None:
    """Measure what jobs and calls cost as they grow in number."""
    console = Console(width=None if Console().is_terminal else 160)

    def say(what: str) -> None:
        console.print(what, style="dim")

    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        with bench(Path(folder) / "waiting", say, quick=quick) as tools:
            counts = QUICK_WAITING if quick else WAITING
            waiting = dict(zip(counts, measure_waiting(tools, counts), strict=True))
        with bench(Path(folder) / "in-flight", say, quick=quick) as tools:
            in_flight = {calls: measure_calls(tools, calls) for calls in (QUICK_IN_FLIGHT if quick else IN_FLIGHT)}
    console.print(_waiting_table(waiting))
    console.print(_in_flight_table(in_flight))
    plot.write_text(draw([_waiting_chart(waiting), *_in_flight_charts(in_flight)]), encoding="utf-8")


def _waiting_table(seen: Mapping[int, Times]) -> Table:
    table = Table("script, median and p99 in ms", *(f"{count:,} jobs waiting" for count in seen), box=MARKDOWN)
    for name in _scripts(seen):
        table.add_row(f"`{name}`", *(_median_and_p99(times[name]) for times in seen.values()))
    return table


def _median_and_p99(times: Sequence[float]) -> str:
    return f"{quantile(times, 0.5):.3f}, {quantile(times, 0.99):.3f}"


def _in_flight_table(seen: Mapping[int, InFlight]) -> Table:
    table = Table("each call", *(f"{calls:,} in flight" for calls in seen), box=MARKDOWN)
    table.add_row("worker CPU, ms", *(f"{one.cpu_ms:.2f}" for one in seen.values()))
    table.add_row("memory, kB", *(f"{one.kilobytes:.0f}" for one in seen.values()))
    table.add_row("calls per second, of the ideal", *(f"{one.rate / one.ideal:.2f}" for one in seen.values()))
    return table


def _waiting_chart(seen: Mapping[int, Times]) -> Chart:
    lines = {name: [(count, quantile(times[name], 0.5)) for count, times in seen.items()] for name in _scripts(seen)}
    return Chart(f"Script in Redis, median ms ({WORKERS} workers)", "jobs waiting", lines)


def _in_flight_charts(seen: Mapping[int, InFlight]) -> Sequence[Chart]:
    cpu = [(calls, one.cpu_ms) for calls, one in seen.items()]
    memory = [(calls, one.kilobytes) for calls, one in seen.items()]
    return [
        Chart("Worker CPU for each call, ms", "calls in flight", {"CPU": cpu}),
        Chart("Worker memory for each call, kB", "calls in flight", {"memory": memory}),
    ]


def _scripts(seen: Mapping[int, Times]) -> Sequence[str]:
    """The scripts that ran at every size."""
    return sorted(set.intersection(*(set(times) for times in seen.values())))


if __name__ == "__main__":
    main()
