"""Child processes that never outlive their parent: each in a process group of its own, its output in a file."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import DarkroomError
from . import guard

#: how long a process may take until it answers
START_SECONDS = 30.0
#: how long a process may take to end after SIGTERM
STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class DidNotStart(DarkroomError):
    """A child process ended, or did not answer in time; the message holds the last lines of its log."""


@dataclass(frozen=True)
class Command:
    """What is started: a name for people, the arguments, and what is added to the environment."""

    name: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    folder: Path


class Process:
    """A running child and its process group."""

    def __init__(self, command: Command, log: Path) -> None:
        self.command = command
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(  # noqa: S603 - the arguments are ours
                command.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=command.folder,
                env={**os.environ, **command.environ},
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        """The process' id, and that of its group."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it runs; a process that ended is not reaped by this, so that its group's id stays its own."""
        if self._child.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def await_ready(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Returns when `ready()` is true. Raises DidNotStart when the process ends before, or after `seconds`."""
        give_up_at = time.monotonic() + seconds
        while not ready():
            if not self.alive:
                raise DidNotStart(f"the {self.name} ended at once; {self.last_words()}")
            if time.monotonic() > give_up_at:
                raise DidNotStart(f"the {self.name} did not answer within {seconds:g} s; {self.last_words()}")
            time.sleep(_LOOK_SECONDS)

    def last_words(self, lines: int = 5) -> str:
        """The end of its log, as one line."""
        said = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"its log {self.log} ends: {' | '.join(said)}" if said else f"its log {self.log} is empty"

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL for what is left of the group after `seconds`."""
        if self._child.returncode is not None:
            return
        self._child.terminate()
        give_up_at = time.monotonic() + seconds
        while self.alive and time.monotonic() < give_up_at:
            time.sleep(_LOOK_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for the whole group, and wait for its leader."""
        if self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()


class Processes:
    """The children of one stack; they end with the context, and by the guard if our process dies first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Process] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(  # noqa: S603 - the arguments are ours
            [sys.executable, "-I", "-S", guard.__file__], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        for process in reversed(tuple(self._running)):
            self.stop(process)
        if self._guard and self._guard.stdin:
            self._guard.stdin.close()
            self._guard.wait()

    @property
    def running(self) -> tuple[Process, ...]:
        """What was started and not stopped, in the order of starting."""
        return tuple(self._running)

    def start(self, command: Command) -> Process:
        """Starts a child; it may not be ready yet."""
        process = Process(command, self._logs / f"{command.name}.log")
        self._tell_guard(f"+{process.pid}")
        self._running.append(process)
        return process

    def stop(self, process: Process, seconds: float = STOP_SECONDS) -> None:
        """Stops a child; returns when nothing of it runs any more."""
        process.stop(seconds)
        self._forget(process)

    def kill(self, process: Process) -> None:
        """SIGKILL, without a word before."""
        process.kill()
        self._forget(process)

    def _forget(self, process: Process) -> None:
        self._running.remove(process)
        self._tell_guard(f"-{process.pid}")

    def _tell_guard(self, line: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            raise RuntimeError("the processes are started within their context")
        self._guard.stdin.write(line.encode() + b"\n")
        self._guard.stdin.flush()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
