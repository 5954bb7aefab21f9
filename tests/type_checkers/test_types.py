"""What type checkers say of a user's program: nothing but the faults that are put there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documentation.pages import page

PROGRAM = Path(__file__).with_name("user_code.py")
FAULTY = {number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# error")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The program and the README's in a folder of their own: Darkroom is installed, its sources are not beside them."""
    (tmp_path / "program.py").write_text(PROGRAM.read_text())
    [readme] = [block.text for block in page("README.md").blocks if block.language == "python"]
    (tmp_path / "readme.py").write_text(readme)
    return tmp_path


def check(folder: Path, *command: str) -> str:
    """What the checker prints."""
    arguments = [sys.executable, "-m", *command, "program.py", "readme.py"]
    run = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stdout


def test_two_faults_are_put_there() -> None:
    assert len(FAULTY) == 2


@pytest.mark.timeout(300)
def test_mypy_finds_the_faults_and_nothing_else(folder: Path) -> None:
    """Without the plugin of pydantic, which a user may not have."""
    said = check(folder, "mypy", "--strict", "--config-file=", "--cache-dir=cache")
    assert {int(number) for number in re.findall(r"^program\.py:([0-9]+): error: ", said, re.MULTILINE)} == FAULTY, said
    assert f"Found {len(FAULTY)} errors in 1 file (checked 2 source files)" in said, said


@pytest.mark.timeout(300)
def test_pyright_finds_the_faults_and_nothing_else(folder: Path) -> None:
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    arguments = ("basedpyright", "--outputjson", "--pythonpath", sys.executable)
    found = json.loads(check(folder, *arguments))["generalDiagnostics"]
    places = {(Path(fault["file"]).name, fault["range"]["start"]["line"] + 1) for fault in found}
    assert places == {("program.py", line) for line in FAULTY}, found
