"""The two quickest benchmarks still run; their figures are not tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_quick_run_prints_a_table() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "enqueue", "--only", "parked"]
    ran = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip()[:7] for line in lines] == ["figure", "-" * 7, "enqueue", "parked,", "parked:"]
