"""What the tests of the command line share: a clean environment, and ways to run a command."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import providers
from jobs.cli import run
from jobs.darkroom import Darkroom
from jobs.darkroom import current as current_darkroom
from jobs.embedded.stack import Stack

GENERATE = ("deepmode.generate", "-p", "model_id=b8a9", "-p", "prompt=a lake at dawn")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code and its output."""

    code: int
    out: str
    err: str = ""

    @property
    def json(self) -> Any:
        """The last line of the output, as JSON."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Command = Callable[..., Ended]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without any setting of Darkroom, in an empty folder."""
    prefixes = ("DARKROOM_", *(f"{name.upper()}_" for name in providers.names()))
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def darkroom(bare: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs one command line in this process."""

    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        code = run(arguments)
        output = capsys.readouterr()
        return Ended(code, output.out, output.err)

    return command


@pytest.fixture
def piped(bare: pytest.MonkeyPatch) -> Command:
    """Runs one command line in a process of its own whose output goes to pipes."""

    def command(*arguments: str) -> Ended:
        argv = [sys.executable, "-m", "jobs.cli", *arguments]
        environ = {**os.environ, "COLUMNS": "80"}
        ended = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return command


@pytest.fixture
def terminal(bare: pytest.MonkeyPatch) -> Command:
    """Runs one command line on a terminal of 80 columns; what it prints there is `out`."""

    def command(*arguments: str) -> Ended:
        argv = [sys.executable, "-m", "jobs.cli", *arguments]
        environ = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
        master, slave = pty.openpty()
        try:
            with subprocess.Popen(argv, env=environ, stdin=slave, stdout=slave, stderr=slave) as process:
                os.close(slave)
                output = b"".join(_read(master))
                code = process.wait(60)
        finally:
            os.close(master)
        return Ended(code, _ANSI.sub("", output.decode().replace("\r\n", "\n")))

    return command


def _read(descriptor: int) -> Iterator[bytes]:
    """What arrives at a pseudoterminal until its other end is closed."""
    while True:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            return
        if not chunk:
            return
        yield chunk


@pytest.fixture
def alone(bare: pytest.MonkeyPatch, redis_url: str, tmp_path: Path) -> Iterator[Darkroom]:
    """A Redis and a folder for images, without a worker."""
    bare.setenv("DARKROOM_REDIS_URL", redis_url)
    bare.setenv("DARKROOM_STORAGE_URL", f"file://{tmp_path}/images")
    return current_darkroom()


@pytest.fixture
def whole(bare: pytest.MonkeyPatch, stack: Stack) -> Stack:
    """A running stack that commands find by their environment."""
    for name, value in stack.environ.items():
        if name.startswith("DARKROOM_"):
            bare.setenv(name, value)
    return stack


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "teal").save(file)
    return file
