"""What a test leaves running: threads of this process, and its child processes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

#: what tests share although it starts within one: multiprocessing's helper, the executor of a sandbox's event loop, and the
#: listener of a Darkroom that several tests use, which ends by itself when nobody has waited for a while
_SHARED = re.compile(r"multiprocessing\.resource_tracker|^thread uvloop_[0-9]+$|^thread darkroom-changes$")


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
    running: dict[Hashable, str] = {thread: f"thread {thread.name}" for thread in threading.enumerate()}
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            running |= {pid: f"process {pid} ({_command(pid)})" for pid in (task / "children").read_text().split()}
    return {key: name for key, name in running.items() if not _SHARED.search(name)}


def _command(pid: str) -> str:
    with suppress(OSError):  # a process that has just ended
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return "ended"
