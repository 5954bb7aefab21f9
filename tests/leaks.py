"""What a test leaves running: threads of this process, and its child processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def no_leaks(seconds: float = 10.0) -> Iterator[None]:
    """Fail unless whatever the block starts has ended at most `seconds` after it."""
    before = _running()
    yield
    give_up_at = time.monotonic() + seconds
    while leaked := {name for key, name in _running().items() if key not in before}:
        assert time.monotonic() < give_up_at, f"still running {seconds:g} s after the test: {', '.join(leaked)}"
        time.sleep(0.02)


def _running() -> Mapping[Hashable, str]:
    """The names of threads by their objects, and those of child processes by their ids."""
    threads = {thread: f"thread {thread.name}" for thread in threading.enumerate()}
    children = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return {**threads, **{pid: f"process {pid} ({_command(pid)})" for pids in children for pid in pids}}


def _command(pid: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return "ended"
