"""The README: short, its first lines run as they stand, and it names every operation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from documentation.pages import page

from jobs import Status, providers
from jobs.embedded.stack import Stack
from jobs.sandbox.faults import VENDORS

README = page("README.md")
#: the most words that somebody who decides whether to go on will read
MOST_WORDS = 900
FIRST = README.blocks[0]


def test_it_has_at_most_900_words() -> None:
    assert len(README.text.split()) <= MOST_WORDS
    assert len(page("docs/README.md").text.split()) <= MOST_WORDS


def test_its_first_code_is_ten_lines_of_python() -> None:
    assert FIRST.language == "python"
    assert FIRST.text.startswith("import jobs\n")
    assert len(FIRST.text.splitlines()) <= 10


def test_the_ten_lines_work_as_they_stand(stack: Stack, tmp_path: Path) -> None:
    before = {job.id for job in stack.darkroom.list().jobs}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", FIRST.text],
        env={**os.environ, **stack.environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 3
    assert {job.status for job in stack.darkroom.list().jobs if job.id not in before} <= {Status.SUCCEEDED}


def test_every_operation_of_the_sandbox_is_in_its_table() -> None:
    table = {(cells[0], cells[1]) for cells in README.rows("Operations")}
    for name in providers.operation_names():
        provider = name.partition(".")[0]
        request = f"{provider}.{providers.operation(name).request.__name__}"
        assert provider not in VENDORS or (f"`{name}`", f"`{request}`") in table


def test_every_status_is_in_the_picture_of_a_jobs_life() -> None:
    [picture] = [block for block in README.blocks if block.language == "mermaid"]
    for status in Status:
        assert f" {status}" in picture.text
