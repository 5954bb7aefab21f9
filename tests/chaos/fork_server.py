"""`python -m tests.chaos.fork_server`: imports everything once, and forks a worker for each line that it reads.

A line on standard input is JSON: `{"environ": {...}, "log": "file"}`; the answer, a line too, is the process id. A child runs
`celery -A tests.chaos.killed_worker worker` exactly as a shell would; only the second and a half of imports is saved.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any

#: the modules that a worker imports, except the package `worker` itself, which reads the environment
_PRELOADED = (
    "celery.bin.celery",
    "celery.apps.worker",
    "kombu.transport.redis",
    "boto3.session",
    "botocore.client",
    "httpcore",
    "h11",
    "uvloop",
    "jobs.darkroom",
)


def main() -> None:
    """Fork workers until standard input ends."""
    for name in _PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are not waited for
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_worker(command)
        print(pid, flush=True)


def _become_worker(command: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.environ.update(command["environ"])
    sys.argv = [
        "celery",
        "-A",
        "tests.chaos.killed_worker",
        "worker",
        "--loglevel",
        "INFO",
        "--without-mingle",
        "--without-gossip",
    ]
    celery = importlib.import_module("celery.bin.celery")
    try:
        celery.main()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
