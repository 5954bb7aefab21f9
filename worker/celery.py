"""The Celery application as a worker runs it: `celery -A worker worker` needs no further options.

The pool is one thread: a task only hands its job to the process's event loop. Everything else that a worker does hangs on one
bootstep, which starts the loop and the sweep and, on SIGTERM, finishes what is in flight.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import bootsteps
from celery.signals import celeryd_init

from jobs import logs, queue
from jobs.errors import SettingsError
from jobs.settings import Settings, enabled_providers

from . import process

#: a configuration key of this application: a callable that is told the name of each step of a job (tests end the process there)
CHECKPOINT = "darkroom_checkpoint"
#: pools in which a task runs in the process that holds the loop
_POOLS = ("celery.concurrency.thread:TaskPool", "celery.concurrency.solo:TaskPool")
#: between two publications of the tasks' events, and the most that wait for one
EVENTS_SECONDS, EVENTS_TOGETHER = 0.5, 500


def _settings() -> Settings:
    try:
        settings = Settings.read()
    except SettingsError as error:
        sys.exit(f"darkroom: {error}")
    logs.install(logs.secrets_of(settings, os.environ))
    return settings


app = queue.application(_settings())
app.conf.update(
    worker_pool="threads",
    worker_concurrency=1,
    worker_prefetch_multiplier=64,
    # Flower shows the tasks without an option of ours.
    worker_send_task_events=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_enable_remote_control=True,
    imports=("worker.tasks",),
)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _listen(conf: Any, **_: Any) -> None:
    """Listens to the queues of the providers whose keys are set; without any there is nothing to work for."""
    try:
        enabled = enabled_providers()
        process.check(Settings.read(), enabled)
    except SettingsError as error:
        sys.exit(f"darkroom: {error}")
    conf.task_queues = [queue.queue(name) for name in enabled]


class Hands(bootsteps.StartStopStep):  # type: ignore[misc]
    """The loop and the sweep: started before the first message, stopped after the last."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **_: Any) -> None:
        pool = f"{parent.pool_cls.__module__}:{parent.pool_cls.__name__}"
        if pool not in _POOLS:
            sys.exit("darkroom: start the worker without -P: its pool is `threads`, its calls run on one event loop")

    def start(self, parent: Any) -> None:
        process.start(parent.hostname, parent.app.conf.get(CHECKPOINT) or (lambda _: None))

    def stop(self, _parent: Any) -> None:
        process.stop()

    terminate = stop


class Events(bootsteps.StartStopStep):  # type: ignore[misc]
    """Sends the tasks' events, which Flower shows, together: one publication for each would cost more than the task."""

    requires = ("celery.worker.consumer.events:Events",)
    _timer: Any = None

    def start(self, parent: Any) -> None:
        dispatcher = parent.event_dispatcher
        dispatcher.buffer_limit = EVENTS_TOGETHER
        dispatcher.on_send_buffered = None
        self._timer = parent.timer.call_repeatedly(EVENTS_SECONDS, dispatcher.flush)

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            parent.event_dispatcher.flush()


app.steps["worker"].add(Hands)
app.steps["consumer"].add(Events)
