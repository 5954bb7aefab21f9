"""The README's own lines, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import Status
from jobs.embedded.stack import Stack

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything that a job needs, with the sandbox for the vendors."""
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def first_lines() -> str:
    """The first block of Python that uses Darkroom."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if re.search(r"^(import jobs|from jobs)\b", block, re.MULTILINE))


def test_the_ten_lines_work_as_they_stand(stack: Stack, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", first_lines()],
        env={**os.environ, **stack.environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    enqueued = stack.darkroom.list()
    assert enqueued
    assert {job.status for job in enqueued} == {Status.SUCCEEDED}
