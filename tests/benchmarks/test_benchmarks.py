"""Every benchmark still runs, in its small size. No test looks at its figures; `--check` does, with ratios."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import FIGURES
from benchmarks.harness import Row, Sides, compared

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FIGURES)
def test_a_quick_run_prints_a_table(name: str) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", name]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    heading, _, *rows = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in heading.split("|")] == [
        "",
        "figure",
        "Darkroom",
        "compared with",
        "ratio",
        "goal",
        "",
        "",
    ]
    assert rows


def test_half_the_speed_is_seen() -> None:
    def row(ratio: float, *, smaller_is_better: bool) -> Row:
        sides = Sides([ratio], [1.0])
        return compared("a figure", sides, "{}", "{}", recorded=2.0, smaller_is_better=smaller_is_better)

    assert [row(ratio, smaller_is_better=False).half_as_fast for ratio in (0.9, 1.1, 9.0)] == [True, False, False]
    assert [row(ratio, smaller_is_better=True).half_as_fast for ratio in (0.9, 3.9, 4.1)] == [False, False, True]


def test_the_goal_of_a_cost_is_an_upper_bound() -> None:
    sides = Sides([1.0, 5.0, 3.0], [2.0, 2.0, 2.0])
    speed = compared("a speed", sides, "{:.0f}/s", "{:.0f}/s", goal=1.6)
    cost = compared("a cost", sides, "{:.0f} ms", "{:.0f} ms", goal=1.6, smaller_is_better=True)
    assert (speed.ours, speed.other, speed.ratio, speed.met, cost.met) == ("3/s", "2/s", 1.5, False, True)
