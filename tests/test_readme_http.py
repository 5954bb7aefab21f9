"""The README's HTTP examples, run as they stand against a whole stack."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jobs import Status
from jobs.embedded.stack import Stack

README = (Path(__file__).parents[1] / "README.md").read_text()
SECTION = README.split("\n## HTTP API\n")[1].split("\n## ")[0]
BLOCKS = dict(re.findall(r"^```(sh|python|js)\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL))
INTERPRETERS = {
    "sh": ["sh", "-eu", "-c", BLOCKS["sh"]],
    "python": [sys.executable, "-W", "error", "-c", BLOCKS["python"]],
    "js": ["node", "--input-type=module", "-e", BLOCKS["js"]],
}


@pytest.mark.parametrize(("language", "made"), [("sh", 1), ("python", 2), ("js", 1)])
def test_an_example_works_as_it_stands(stack: Stack, tmp_path: Path, language: str, made: int) -> None:
    if shutil.which(INTERPRETERS[language][0]) is None:
        pytest.skip(f"no {INTERPRETERS[language][0]} on this machine")
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "photo.png")
    before = {job.id for job in stack.darkroom.list()}

    ran = subprocess.run(
        INTERPRETERS[language],
        env={**os.environ, "URL": stack.url, "KEY": stack.api_key_file.read_text().strip()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert "problem" not in ran.stdout
    new = [job for job in stack.darkroom.list() if job.id not in before]
    assert [job.status for job in new] == [Status.SUCCEEDED] * made
    assert f"{stack.url}/files/" in ran.stdout
