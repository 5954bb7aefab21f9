"""Every benchmark still runs, in its small size. No test looks at its figures; `--check` does, with ratios."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks.__main__ import FIGURES
from benchmarks.harness import Row, Sides, compared
from benchmarks.line_chart import Chart, draw

ROOT = Path(__file__).parents[2]


#: `make bench-check` runs all of them, and CI runs that
NAMES = [name if name == "parked" else pytest.param(name, marks=pytest.mark.engine) for name in FIGURES]


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.engine
def test_growth_draws_its_plot(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.growth", "--quick", "--plot", str(tmp_path / "growth.svg")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert len([line for line in ran.stdout.splitlines() if line.startswith("|-")]) == 2
    drawn = ElementTree.parse(tmp_path / "growth.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}g")) == 3


def test_a_line_chart_has_equal_steps_for_powers_of_ten() -> None:
    chart = Chart("Cost", "jobs", {"one": [(10, 1.0), (100, 10.0), (1000, 100.0)], "two": [(10, 5.0), (1000, 5.0)]})
    drawn = ElementTree.fromstring(draw([chart]))
    one, two = (
        [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")
    )
    (x0, y0), (x1, y1), (x2, y2) = one
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y1
    assert two[0][1] == two[1][1]
    assert {"Cost", "jobs", "one", "two", "10", "100", "1,000"} <= {
        text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")
    }


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
