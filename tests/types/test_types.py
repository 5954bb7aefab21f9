"""What type checkers say of a user's program: nothing but the faults that are put there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("user_code.py")
FAULTY = {number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# error")}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program in a folder of its own, as a user has it: Darkroom is installed, its sources are not beside it."""
    copy = tmp_path / "program.py"
    copy.write_text(PROGRAM.read_text())
    return copy


def check(program: Path, *command: str) -> str:
    """What the checker prints."""
    arguments = [sys.executable, "-m", *command, str(program)]
    run = subprocess.run(arguments, cwd=program.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stdout


def test_two_faults_are_put_there() -> None:
    assert len(FAULTY) == 2


@pytest.mark.timeout(300)
def test_mypy_finds_the_faults_and_nothing_else(program: Path) -> None:
    """Without the plugin of pydantic, which a user may not have."""
    said = check(program, "mypy", "--strict", "--config-file=", f"--cache-dir={program.parent / 'cache'}")
    assert {int(number) for number in re.findall(r"program\.py:([0-9]+): error: ", said)} == FAULTY, said
    assert f"Found {len(FAULTY)} errors in 1 file" in said, said


@pytest.mark.timeout(300)
def test_pyright_finds_the_faults_and_nothing_else(program: Path) -> None:
    (program.parent / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "include": ["program.py"], "reportUnusedExpression": False})
    )
    arguments = ("basedpyright", "--outputjson", "--pythonpath", sys.executable)
    found = json.loads(check(program, *arguments))["generalDiagnostics"]
    assert {fault["range"]["start"]["line"] + 1 for fault in found} == FAULTY, found
