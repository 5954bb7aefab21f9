"""Child processes that never outlive their parent: each in its own process group, its output in a log file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import DarkroomError
from ..settings import environment
from . import guard

#: how long a process may take until it answers, in seconds
START_SECONDS = 30.0
#: how long a process may take to end after SIGTERM, in seconds
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05


class DidNotStart(DarkroomError):
    """A child process ended, or did not answer in time; the message holds the last lines of its log."""


@dataclass(frozen=True)
class Command:
    """A command line with a name for people; `environ` is added to our own environment, `folder` is where it runs."""

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
            self._child = subprocess.Popen(  # noqa: S603 - the arguments are our own
                command.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=command.folder,
                env={**environment(), **command.environ},
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        """The id of the process and of its process group."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs. A process that has ended is not reaped here, so that the id of its group stays reserved."""
        if self._child.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def await_ready(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until `ready()` is true. Raises DidNotStart when the process ends before that, or after `seconds`."""
        give_up_at = time.monotonic() + seconds
        while not ready():
            if not self.is_alive:
                raise DidNotStart(f"the {self.name} ended at once; {self.log_tail()}")
            if time.monotonic() > give_up_at:
                raise DidNotStart(f"the {self.name} did not answer within {seconds:g} s; {self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def log_tail(self, lines: int = 5) -> str:
        """The last lines of its log, as one line."""
        tail = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"its log {self.log} ends: {' | '.join(tail)}" if tail else f"its log {self.log} is empty"

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Send SIGTERM, and SIGKILL after `seconds` to what is left of the group."""
        if self._child.returncode is not None:
            return
        self._child.terminate()
        give_up_at = time.monotonic() + seconds
        while self.is_alive and time.monotonic() < give_up_at:
            time.sleep(_POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the whole group and wait for its leader."""
        if self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()


class Processes:
    """The child processes of one stack. They end with the context; if our process dies first, the guard ends them."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Process] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(  # noqa: S603 - the arguments are our own
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
        """The processes that were started and not stopped, in the order of their start."""
        return tuple(self._running)

    def start(self, command: Command) -> Process:
        """Start a child; it may not be ready yet."""
        process = Process(command, self._logs / f"{command.name}.log")
        self._tell_guard(f"+{process.pid}")
        self._running.append(process)
        return process

    def stop(self, process: Process, seconds: float = STOP_SECONDS) -> None:
        """Stop a child; returns when nothing of it runs any more."""
        process.stop(seconds)
        self._forget(process)

    def kill(self, process: Process) -> None:
        """Send SIGKILL to a child and all that it started."""
        process.kill()
        self._forget(process)

    def _forget(self, process: Process) -> None:
        self._running.remove(process)
        self._tell_guard(f"-{process.pid}")

    def _tell_guard(self, line: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            raise RuntimeError("processes can only be started within the context")
        self._guard.stdin.write(line.encode() + b"\n")
        self._guard.stdin.flush()
