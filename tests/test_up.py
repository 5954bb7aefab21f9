"""`darkroom up` as a person runs it: other commands in its folder find it, and its data outlive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey

GENERATE = ("enqueue", "deepmode.generate", "-p", "model_id=b8a9", "-p", "prompt=a lake", "--wait", "--json")


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    return {**kept, "HOME": str(tmp_path)}


@contextmanager
def running(folder: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`darkroom up` in this folder, once it has said where everything is."""
    arguments = [sys.executable, "-m", "jobs.cli", "up", "--port", "0"]
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(arguments, env=environ, cwd=folder, stdout=said, stderr=said) as up,
    ):
        give_up_at = time.monotonic() + 40
        while "Ctrl-C" not in (folder / "said").read_text():
            assert time.monotonic() < give_up_at, (folder / "said").read_text()
            assert up.poll() is None, (folder / "said").read_text()
            time.sleep(0.05)
        try:
            yield up
        finally:
            if up.poll() is None:
                up.send_signal(signal.SIGINT)


def darkroom(folder: Path, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60)


def test_other_commands_find_it_and_its_jobs_outlive_it(tmp_path: Path, environ: Mapping[str, str]) -> None:
    with running(tmp_path, environ) as up:
        job = json.loads(darkroom(tmp_path, environ, *GENERATE).stdout)
        assert job["status"] == "succeeded"
        assert darkroom(tmp_path, environ, "doctor").returncode == 0
        second = darkroom(tmp_path, environ, "up")
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert "a stack runs in .darkroom already" in second.stderr
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0
    assert not (tmp_path / ".darkroom" / "env").exists()
    assert (tmp_path / ".darkroom" / ".gitignore").read_text() == "*\n"

    with running(tmp_path, environ):
        shown = json.loads(darkroom(tmp_path, environ, "get", job["id"], "--json").stdout)
    assert [artifact["sha256"] for artifact in shown["artifacts"]] == [one["sha256"] for one in job["artifacts"]]
