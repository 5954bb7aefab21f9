"""`darkroom up`: other commands in its folder find it, its jobs outlive it, and its port is its own."""

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

import httpx
import pytest

pytestmark = [pytest.mark.journey, pytest.mark.usefixtures("interruptible")]

GENERATE = ("enqueue", "deepmode.generate", "-p", "model_id=b8a9", "-p", "prompt=a lake", "--wait", "--json")


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    return {**kept, "HOME": str(tmp_path)}


@contextmanager
def running(folder: Path, environ: Mapping[str, str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`darkroom up` in this folder, once it has printed where everything is."""
    folder.mkdir(exist_ok=True)
    output = folder / "output"
    arguments = [sys.executable, "-m", "jobs.cli", "up", *(options or ("--port", "0"))]
    with (
        output.open("w") as file,
        subprocess.Popen(arguments, env=environ, cwd=folder, stdout=file, stderr=file) as up,
    ):
        try:
            give_up_at = time.monotonic() + 60
            while "Ctrl-C" not in output.read_text():
                assert time.monotonic() < give_up_at, output.read_text()
                assert up.poll() is None, output.read_text()
                time.sleep(0.05)
            yield up
        finally:
            up.send_signal(signal.SIGINT)
            try:
                up.wait(30)
            finally:
                up.kill()  # then its guard ends what it started


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


def test_a_second_stack_on_the_same_port_is_refused_before_it_starts_anything(
    tmp_path: Path, environ: Mapping[str, str], free_port: int
) -> None:
    port = ("--port", str(free_port))
    with running(tmp_path / "first", environ, *port):
        (tmp_path / "second").mkdir()
        refused = darkroom(tmp_path / "second", environ, "up", *port)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"port {free_port} is taken" in refused.stderr
        assert "--port" in refused.stderr
        assert not list((tmp_path / "second").rglob("*.log"))
        with running(tmp_path / "second", environ, "--port", "0"):
            answers = {
                httpx.get(f"http://127.0.0.1:{free_port}/healthz", trust_env=False).status_code for _ in range(20)
            }
            assert answers == {200}


def test_in_the_background_of_a_shell_it_stops_on_sigterm(tmp_path: Path, environ: Mapping[str, str]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with running(tmp_path, environ) as up:
            up.send_signal(signal.SIGTERM)
            assert up.wait(30) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / ".darkroom" / "env").exists()
