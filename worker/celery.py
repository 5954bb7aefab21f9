"""The Celery application of a worker: `celery -A worker worker` needs no further options.

The pool is one thread, since a task only starts its job on the process's event loop. Everything else that a worker does is started
by one bootstep, which on SIGTERM finishes what is in progress.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import bootsteps
from celery.signals import celeryd_init, setup_logging

from jobs import logs, queue
from jobs.errors import SettingsError
from jobs.settings import Settings, enabled_providers, environment

from . import process

#: a configuration key of this application: a function that is called with the name of each step of a job, where a test may end the
#: process
CHECKPOINT = "darkroom_checkpoint"
#: the pools that run a task in the process that has the event loop
_POOLS = ("celery.concurrency.thread:TaskPool", "celery.concurrency.solo:TaskPool")
#: between two publications of the tasks' events, in seconds, and the most events in one of them
EVENTS_SECONDS, MAX_EVENTS = 0.5, 500
#: Celery's loggers with one line a task; `darkroom`'s own lines say more
_TASK_LOGGERS = ("celery.worker.strategy", "celery.app.trace")

try:
    _settings = Settings.read()
except SettingsError as error:
    sys.exit(f"darkroom: {error}")
logs.install(logs.secrets_of(_settings, environment()))

app = queue.application(_settings)
app.conf.update(
    worker_pool="threads",
    worker_concurrency=1,
    worker_prefetch_multiplier=64,
    # Flower shows the tasks without an option of ours.
    worker_send_task_events=True,
    worker_redirect_stdouts=False,
    worker_enable_remote_control=True,
    # Error replies of Redis (READONLY, MISCONF, UNBLOCKED) are channel errors to Celery. Each of them passes, and a worker that
    # stopped at one would lose the outcome of its open calls: the consumer is started again instead.
    broker_channel_error_retry=True,
    worker_consumer="worker.consumer:Consumer",
    # Without effect, since our task is acknowledged early; it silences a warning at each lost connection.
    worker_cancel_long_running_tasks_on_connection_loss=True,
    imports=("worker.tasks",),
)


@setup_logging.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _set_up_logging(loglevel: int, logfile: str | None = None, **_: Any) -> None:
    """Show events at INFO, and everything else from Celery's `--loglevel` on (WARNING by default)."""
    logs.configure(_settings.log_format, level=loglevel, file=logfile)
    for name in _TASK_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING if loglevel > logging.DEBUG else logging.DEBUG)


@celeryd_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _print_only_json(instance: Any, **_: Any) -> None:
    """Where the log is JSON, keep Celery from printing text: its banner, warnings before the log is set up, "Warm shutdown"."""
    if _settings.log_format != "json":
        return
    instance.quiet = True
    sys.__stdout__ = None  # type: ignore[misc]  # as in a process without a console, where Celery prints nothing
    shown = logging.StreamHandler()
    shown.setFormatter(logs.formatter("json"))
    warnings = logging.getLogger("py.warnings")
    warnings.addHandler(shown)
    warnings.propagate = False
    logging.captureWarnings(True)


@celeryd_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _set_queues(conf: Any, **_: Any) -> None:
    """Consume the queues of the providers whose keys are set. Without any there is nothing to do."""
    try:
        enabled = enabled_providers()
        process.check(Settings.read(), enabled)
    except SettingsError as error:
        sys.exit(f"darkroom: {error}")
    conf.task_queues = [queue.queue(name) for name in enabled]


class DarkroomStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """The event loop and the services: started before the first message, stopped after the last one."""

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


class EventsStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Sends the tasks' events, which Flower shows, in batches: one publication each would cost more than the task."""

    requires = ("celery.worker.consumer.events:Events",)
    _timer: Any = None

    def start(self, parent: Any) -> None:
        dispatcher = parent.event_dispatcher
        dispatcher.buffer_limit = MAX_EVENTS
        dispatcher.on_send_buffered = None
        self._timer = parent.timer.call_repeatedly(EVENTS_SECONDS, dispatcher.flush)

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            parent.event_dispatcher.flush()


app.steps["worker"].add(DarkroomStep)
app.steps["consumer"].add(EventsStep)
