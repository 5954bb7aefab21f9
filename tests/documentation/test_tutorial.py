"""The tutorial, followed as it stands in a temporary folder: `darkroom up`, both jobs, the endpoint and its webhook."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from documentation.pages import Block, page

from jobs.embedded.ports import free_port

pytestmark = pytest.mark.journey

BLOCKS = page("docs/tutorial.md").blocks
SECONDS = 60


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    """An empty home, no settings, and the commands of this environment on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "FLASK_"))}
    return {**kept, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextmanager
def in_background(text: str, folder: Path, environ: Mapping[str, str], log: str) -> Iterator[Callable[[], str]]:
    """A shell block that runs until the end; yields what reads its output."""

    def output() -> str:
        return (folder / log).read_text()

    with (folder / log).open("w") as file:
        # `exec` for the last line, so that the signal reaches the program and not its shell.
        *before, last = text.strip().splitlines()
        script = "\n".join([*before, f"exec {last}"])
        process = subprocess.Popen(
            ["sh", "-eu", "-c", script],
            cwd=folder,
            env=environ,
            stdout=file,
            stderr=file,
            # Where a shell ignores SIGINT for its background jobs, its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            yield output
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)


def wait_for(words: str, output: Callable[[], str]) -> None:
    give_up_at = time.monotonic() + SECONDS
    while words not in output():
        assert time.monotonic() < give_up_at, output()
        time.sleep(0.1)


def test_every_step_works_as_it_stands(tmp_path: Path, environ: Mapping[str, str]) -> None:
    receiver, endpoint = free_port(), free_port()

    def ported(block: Block) -> str:
        text = block.text.replace("darkroom up", f"darkroom up --port {receiver}")
        return re.sub(r"\b5000\b", str(endpoint), text)

    for block in BLOCKS:
        if name := block.mark("file"):
            (tmp_path / name).write_text(ported(block))
    background = {block.mark("background"): ported(block) for block in BLOCKS if block.mark("background")}
    script = "".join(ported(block) for block in BLOCKS if "run" in block.marks)

    with ExitStack() as running:
        up = running.enter_context(in_background(background["up"], tmp_path, environ, "up.log"))
        wait_for("Ctrl-C", up)
        flask = running.enter_context(in_background(background["flask"], tmp_path, environ, "flask.log"))
        wait_for("Running on", flask)
        ran = subprocess.run(
            ["sh", "-eu", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100
        )
        assert ran.returncode == 0, ran.stderr
        wait_for("succeeded", flask)
    assert ran.stdout.count("succeeded\n") >= 2  # what first_job.py prints, twice
    [told] = set(re.findall(r"job ([0-9a-f]{32}) succeeded", (tmp_path / "flask.log").read_text()))
    assert told in ran.stdout


def test_every_shell_block_but_the_installation_is_run() -> None:
    left = [block for block in BLOCKS if block.language == "sh" and not block.marks]
    assert [block.text.split()[:2] for block in left] == [["git", "clone"], ["mkdir", "tutorial"]]
