"""`darkroom demo`: a real run that leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs import providers
from jobs.sandbox.faults import VENDORS as SANDBOXED

pytestmark = [pytest.mark.journey, pytest.mark.usefixtures("interruptible")]


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    """An empty HOME, and a temporary folder of its own by which every process of the demo is recognized."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    return {**kept, "HOME": str(home), "TMPDIR": str(tmp_path)}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", "demo", *arguments]


def left_processes(tmp_path: Path) -> list[list[str]]:
    """The command lines of all processes whose TMPDIR is this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TMPDIR") == str(tmp_path):
                found.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def until(true: Callable[[], Any], seconds: float = 30) -> bool:
    give_up_at = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.1)
    return True


def test_every_job_of_every_operation_succeeds_and_every_image_is_read_back(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    done = subprocess.run(command("--json"), env=environ, capture_output=True, text=True, timeout=100, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout.splitlines()[-1])
    played = {name for name in providers.operation_names() if name.partition(".")[0] in SANDBOXED}
    assert set(counted["operations"]) == played  # a new provider is left out until the sandbox plays it
    assert all(count["jobs"] == count["succeeded"] >= 2 for count in counted["operations"].values())
    assert counted["jobs"] == counted["succeeded"] == sum(each["jobs"] for each in counted["operations"].values())
    [folder] = tmp_path.glob("darkroom-demo-*")
    assert str(folder / "images") in done.stdout.splitlines()
    stored = [file for file in (folder / "images" / "jobs").rglob("*") if file.suffix in {".jpg", ".png", ".webp"}]
    assert counted["images"] == len(stored) > counted["jobs"]
    assert all(way in done.stdout for way in ("answer", "poll", "callback"))
    too_long = [line for line in done.stdout.splitlines()[:-1] if len(line) > 80 and not Path(line).is_absolute()]
    assert not too_long
    assert [entry.name for entry in folder.iterdir()] == ["images"]
    assert left_processes(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "seconds"),
    [(signal.SIGINT, 20), (signal.SIGTERM, 20), (signal.SIGKILL, 30)],
    ids=lambda value: str(value),
)
def test_no_process_is_left_by_any_signal(
    tmp_path: Path, environ: Mapping[str, str], number: signal.Signals, seconds: float
) -> None:
    folder = tmp_path / "kept"
    with (tmp_path / "output").open("w+") as output:
        arguments = command("--folder", str(folder))
        with subprocess.Popen(arguments, env=environ, stdout=output, stderr=output, cwd=tmp_path) as demo:
            try:
                assert until(lambda: "submitting" in (tmp_path / "output").read_text())
                assert len(left_processes(tmp_path)) >= 6  # the demo, its guard, Redis, sandbox, receiver and worker
                demo.send_signal(number)
                code = demo.wait(seconds)
            finally:
                demo.kill()
    assert code == (-number if number is signal.SIGKILL else 130)
    assert until(lambda: not left_processes(tmp_path), seconds), left_processes(tmp_path)
