"""The examples of the pages that are marked `run`, run as they stand against a whole stack."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documentation.pages import ROOT, Block, blocks, pages
from PIL import Image

from jobs import Status
from jobs.embedded.stack import Stack

#: the tutorial's blocks belong together, and the README's have a test of their own
MARKED = [
    block
    for page in pages()
    if str(page) not in {"docs/tutorial.md", "README.md"}
    for block in page.blocks
    if "run" in block.marks
]
INTERPRETERS = {
    "sh": ["sh", "-eu", "-c"],
    "python": [sys.executable, "-W", "error", "-c"],
    "js": ["node", "--input-type=module", "-e"],
}


@pytest.mark.parametrize("block", MARKED, ids=str)
def test_an_example_works_as_it_stands(stack: Stack, tmp_path: Path, block: Block) -> None:
    command = INTERPRETERS[block.language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} on this machine")
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "photo.png")
    before = {job.id for job in stack.darkroom.list().jobs}

    ran = subprocess.run(
        [*command, block.text],
        env={**os.environ, **stack.environ, "URL": stack.url, "KEY": stack.api_key_file.read_text().strip()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert "problem" not in ran.stdout
    new = [job for job in stack.darkroom.list().jobs if job.id not in before]
    assert new
    assert {stack.darkroom.wait(job.id, 30).status for job in new} == {Status.SUCCEEDED}
    assert block.page != "docs/reference/http.md" or f"{stack.url}/files/" in ran.stdout


def test_the_python_of_all_pages_fits_the_types_of_the_public_api(tmp_path: Path) -> None:
    # The reference shows signatures without bodies.
    for block in (block for block in blocks("python") if block.page != "docs/reference/python.md"):
        name = re.sub(r"\W", "_", str(block))
        (tmp_path / f"{name}.py").write_text(block.text)
    command = [sys.executable, "-m", "mypy", "--config-file=", "--check-untyped-defs", "--ignore-missing-imports"]
    ran = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=100, cwd=ROOT)
    # A block may go on with what the one above it has defined.
    faults = [line for line in ran.stdout.splitlines() if ": error:" in line and "[name-defined]" not in line]
    assert faults == []
    assert " source files" in ran.stdout


def test_there_are_examples_in_each_language() -> None:
    assert {block.language for block in MARKED} == set(INTERPRETERS)
