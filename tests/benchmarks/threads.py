"""Where the CPU of a worker goes, by thread: from the kernel's own count of each thread's CPU time, without a profiler.

The worker imports this module (`--include`), and writes the names of its threads to a file when it gets SIGUSR2.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psutil

from .harness import until

#: options of a worker whose threads are asked for
OPTIONS = ("--include", __name__)
#: threads are shown by their names, without the number in a pool; Celery's thread pool calls its thread so
MAIN, _CELERY_POOL = "Celery's main thread", "ThreadPoolExecutor"
_NUMBER = re.compile(r"[-_]\d+(_\d+)?$")


def cpu_times(process: psutil.Process) -> Mapping[int, float]:
    """The CPU seconds of each thread so far, by its id."""
    return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}


def names(worker: psutil.Process) -> Mapping[int, str]:
    """The name of each thread of the worker, by its id."""
    file = _file(worker.pid)
    worker.send_signal(signal.SIGUSR2)
    until(file.exists, "the names of the threads")
    found = {int(number): _shown(name) for number, name in json.loads(file.read_text()).items()}
    file.unlink()
    return {**found, worker.pid: MAIN}


def shares(before: Mapping[int, float], after: Mapping[int, float], names: Mapping[int, str]) -> Mapping[str, float]:
    """Each name's part of the CPU between two times, the main thread first, then the largest; below 0.5 % it is left out."""
    seconds: Counter[str] = Counter()
    for number, spent in after.items():
        seconds[names.get(number, "other threads")] += spent - before.get(number, 0.0)
    total = seconds.total()
    parts = {name: spent / total for name, spent in seconds.most_common() if spent / total >= 0.005}
    return {MAIN: seconds[MAIN] / total, **parts}


def _shown(name: str) -> str:
    name = _NUMBER.sub("", name)
    return "Celery's task thread" if name == _CELERY_POOL else f"thread `{name}`"


def _file(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"darkroom-threads-{pid}.json"


def _write_names(*_: object) -> None:
    found = {thread.native_id: thread.name for thread in threading.enumerate()}
    file = _file(os.getpid())
    half = file.with_suffix(".half")
    half.write_text(json.dumps(found))
    half.rename(file)


if psutil.Process().cmdline()[-1:] == [__name__]:  # in the worker that was started with our options
    signal.signal(signal.SIGUSR2, _write_names)
