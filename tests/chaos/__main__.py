"""`python -m tests.chaos --seed 7`: real processes are killed all the time, and at the end nothing was paid twice, lost or stuck."""

from __future__ import annotations

import logging
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from pprint import pformat

import click
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from .cluster import Supervisor, abbreviated, start_cluster
from .plan import make_plan
from .verdict import Evidence, Verdict, judge

#: how long it may take to find a dead worker, at the 99th percentile, in seconds
RECOVERY_SECONDS = 15.0


@click.command()
@click.option("--seed", type=int, help="Draws the plan; a random one by default.")
@click.option("--seconds", default=60.0, show_default=True, help="How long things go wrong.")
@click.option("--jobs", default=0, help="How many are enqueued; 5 a second by default.")
@click.option("--fsync", type=click.Choice(["always", "everysec"]), default="always", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put data and logs; kept.")
@click.option("--verbose", is_flag=True, help="Tell what happens while it happens.")
def main(seed: int | None, seconds: float, jobs: int, fsync: str, folder: Path | None, verbose: bool) -> None:
    """Kill Darkroom's processes every 2 s while jobs of all scenarios run, and compare the records with the providers' ledger."""
    if verbose:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("chaos").setLevel(logging.INFO)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    home = folder or Path(tempfile.mkdtemp(prefix=f"darkroom-chaos-{seed}-"))
    plan = make_plan(seed, seconds, jobs or int(seconds * 5))
    began = time.monotonic()
    with start_cluster(home, plan, fsync=fsync) as place:
        evidence = place.run(plan)
    verdict = judge(evidence)
    write_records(home / "accused.txt", evidence, verdict)
    print_table(Console(), seed, verdict, place.supervisor, time.monotonic() - began)
    if not passed(verdict):
        click.echo(f"FAILED. Again: make chaos SEED={seed}; data and logs: {home}", err=True)
        sys.exit(1)
    if folder is None:
        shutil.rmtree(home)


def write_records(file: Path, evidence: Evidence, verdict: Verdict) -> None:
    """Write everything about each job with a broken promise to a file, which stays in the folder of a failed run."""
    prompts = {*verdict.paid_twice, *verdict.lost, *verdict.stuck, *verdict.unexplained}
    books = [book for book in evidence.books if book["prompt"] in prompts]
    result = [f"{prompt}\n{pformat(evidence.jobs[prompt], width=150)}\n" for prompt in sorted(prompts)]
    slow = [recovery for recovery in evidence.recoveries if recovery.seconds > RECOVERY_SECONDS]
    result += [pformat(slow, width=150), pformat(books, width=150), pformat(evidence.deaths, width=150)]
    file.write_text("\n".join(result))


def passed(verdict: Verdict) -> bool:
    """Whether every promise was kept, and dead workers were found in time."""
    return verdict.clean and verdict.p99_recovery <= RECOVERY_SECONDS


def print_table(console: Console, seed: int, verdict: Verdict, supervisor: Supervisor, seconds: float) -> None:
    """Print the table."""
    failed = ", ".join(f"{count} {code}" for code, count in sorted(verdict.failed.items()))
    rows = {
        "seed": seed,
        "processes killed": supervisor.killed,
        "processes that ended by themselves": abbreviated(supervisor.crashed) or 0,
        "jobs": verdict.jobs,
        "final": verdict.final,
        "succeeded": f"{verdict.succeeded} ({verdict.images} images)",
        "failed": failed or 0,
        "unknown, and say so": verdict.unknown,
        "unknown without a reason": abbreviated(verdict.unexplained) or 0,
        "paid twice": abbreviated(verdict.paid_twice) or 0,
        "lost": abbreviated(verdict.lost) or 0,
        "stuck": abbreviated(verdict.stuck) or 0,
        "recovery of a dead worker's jobs": (
            f"{verdict.recoveries} jobs, p99 {verdict.p99_recovery:.1f} s, slowest {verdict.slowest_recovery:.1f} s"
        ),
        "took": f"{seconds:.0f} s",
    }
    table = Table(box=MARKDOWN)
    for heading in ("chaos", ""):
        table.add_column(heading, overflow="fold")
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(table)


if __name__ == "__main__":
    main()
