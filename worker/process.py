"""One worker process: its holder id, its event loop and its services; started and stopped by Celery's bootstep."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvloop

from jobs import providers, schedule, transitions
from jobs.darkroom import Darkroom
from jobs.errors import SettingsError, Unavailable
from jobs.job import Job
from jobs.queue import queue_name
from jobs.settings import ProviderSettings, Settings, enabled_providers
from jobs.storage.spool import Spool

from .calls import ProviderCalls
from .deliveries import WebhookSender
from .due import Lease, Sweep
from .image_store import ImageStore
from .inputs import Inputs
from .limits import ConcurrencyLimit, MemoryBudget
from .runner import Runner
from .services import Service, ServiceThread
from .transport import Transport
from .updates import Updates
from .upkeep import Cleanup, SpoolReport
from .watchdog import Backlog, Watchdog, WatchdogService

log = logging.getLogger(__name__)

#: blocking calls (Redis, the storage, Pillow) that run at once beside the event loop
THREADS = 16
#: how long a worker retries its writes while Redis is away, in seconds
RETRY_SECONDS = 86_400.0
#: how long the sweep retries a call to Redis before its run has failed, in seconds
_SWEEP_RETRY_SECONDS = 1.0
#: due jobs that are looked at, and jobs that send webhooks, at once
_ATTENDED, _DELIVERING = 512, 512


def check(settings: Settings, enabled: Mapping[str, ProviderSettings]) -> None:
    """Raise SettingsError when a worker cannot work with these settings; warn of what it goes on without."""
    for sentence in providers.faults().values():
        log.error("a provider cannot be used: %s", sentence)
    if not enabled:
        keys = ", ".join(f"{name.upper()}_API_KEY" for name in providers.names())
        raise SettingsError(keys.split(", ", 1)[0], f"no provider's key is set (any of {keys})", "your-secret-key")
    if settings.callback_base is None:
        log.warning(
            "DARKROOM_PUBLIC_URL is not set: providers cannot call back, so operations run in their sync or polled mode"
        )


@dataclass(frozen=True)
class Work:
    """The jobs that a process works on, as tasks of its event loop."""

    runner: Runner
    webhooks: WebhookSender
    loop: asyncio.AbstractEventLoop
    #: jobs that run, such as those with an open provider call
    running: ConcurrencyLimit
    #: due jobs that the sweep brought; they need no slot of `running`, since one of them may end a job that has such a slot
    attended: ConcurrencyLimit
    #: jobs that send webhooks; a slow endpoint delays neither of the others
    delivering: ConcurrencyLimit
    now: Callable[[], datetime]
    #: references to the tasks, since the loop keeps none
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def run_when_free(self, job_id: str) -> None:
        """Run a job as soon as there is a slot for it, and block until then."""
        if self.running.acquire(job_id, wait=True):
            self.run(job_id)

    def run(self, job_id: str) -> None:
        """Run a job that has a slot."""
        self._spawn(job_id, self.running, self.runner.run(job_id))

    def attend(self, job: Job, living: frozenset[str]) -> None:
        """Act on a due job, unless that is in progress; without a free slot the sweep brings it again."""
        if schedule.due_deliveries(job, self.now()) and self.delivering.acquire(job.id, wait=False):
            self._spawn(job.id, self.delivering, self.webhooks.deliver(job))
        if self.attended.acquire(job.id, wait=False):
            self._spawn(job.id, self.attended, self.runner.attend(job, living))

    @property
    def in_progress(self) -> frozenset[str]:
        """The ids of the jobs that this process works on."""
        return self.running.held | self.attended.held | self.delivering.held

    def close(self) -> None:
        """Start nothing more."""
        for limit in (self.running, self.attended, self.delivering):
            limit.close()

    def _spawn(self, job_id: str, limit: ConcurrencyLimit, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("job %s", job_id)
            finally:
                limit.release(job_id)

        def begin() -> None:
            task = self.loop.create_task(run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.loop.call_soon_threadsafe(begin)


@dataclass(frozen=True)
class Process:
    """Everything that one worker process holds."""

    darkroom: Darkroom
    holder: str
    work: Work
    sweep: Sweep
    #: the watchdog's connection to the broker
    backlog: Backlog
    #: everything that runs in the background; the sweep is the last to be stopped
    services: Sequence[ServiceThread]
    threads: ThreadPoolExecutor
    thread: threading.Thread

    def start(self) -> None:
        """Make the worker known, and start its services."""
        self.sweep.register()
        for service in self.services:
            service.start()

    def stop(self) -> None:
        """Finish what is in progress; what does not end in time is released, or its outcome becomes unknown."""
        self.work.close()
        self.sweep.drain()
        give_up_at = time.monotonic() + self.darkroom.settings.drain_seconds
        while self.work.in_progress and time.monotonic() < give_up_at:
            time.sleep(0.05)

        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(cancel_all(), self.work.loop).result(timeout=5)
        with suppress(Unavailable):
            for job_id in self.sweep.repository.held(self.holder):
                self.sweep.repository.update(job_id, lambda job, now: transitions.outcome_lost(job, self.holder, now))
            self.sweep.repository.remove_worker(self.holder)
        for service in self.services:
            service.stop()
        self.backlog.close()
        self.darkroom.close()
        self.work.loop.call_soon_threadsafe(self.work.runner.images.transport.close)
        self.work.loop.call_soon_threadsafe(self.work.loop.stop)
        self.thread.join(timeout=5)
        self.threads.shutdown(wait=False, cancel_futures=True)


_process: Process | None = None


def start(hostname: str, checkpoint: Callable[[str], None] = lambda _: None) -> Process:
    """Start this process's event loop and services."""
    global _process  # noqa: PLW0603 - Celery's bootstep and its tasks meet here: a worker process has one
    settings, enabled = Settings.read(), enabled_providers()
    check(settings, enabled)
    _process = assemble(settings, enabled, hostname, checkpoint)
    _process.start()
    return _process


def run_when_free(job_id: str) -> None:
    """Run a job on this process's event loop as soon as there is a slot for it, and block until then."""
    if _process is None:
        raise RuntimeError("this worker process was not started")
    _process.work.run_when_free(job_id)


def stop() -> None:
    """Stop what `start` started."""
    global _process  # noqa: PLW0603 - see `start`
    if _process is not None:
        _process.stop()
        _process = None


def assemble(
    settings: Settings,
    enabled: Mapping[str, ProviderSettings],
    hostname: str,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> Process:
    """Make a process whose event loop runs; nothing is claimed before it is started."""
    darkroom = Darkroom.open(settings, patience_seconds=RETRY_SECONDS)
    loop = uvloop.new_event_loop()
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blocking")

    def blocking(call: Callable[[], Any]) -> Awaitable[Any]:
        return loop.run_in_executor(threads, call)

    transport = Transport(allowed_networks=settings.allowed_private_networks)
    now, storage, updates = darkroom.repository.clock.now, darkroom.storage, Updates(darkroom.repository, blocking)
    calls = ProviderCalls(settings, enabled, transport, Inputs(storage, transport, blocking), checkpoint)
    images = ImageStore(
        settings.max_image_bytes,
        storage,
        Spool(settings.spool_dir / "images", settings.spool_max_bytes),
        transport,
        calls,
        MemoryBudget(settings.max_bytes_in_flight),
        blocking,
        now,
        checkpoint,
    )
    lease = Lease()
    holder = secrets.token_hex(8)
    runner = Runner(darkroom, holder, calls, images, updates, blocking, checkpoint, lambda: lease.held)
    webhooks = WebhookSender(darkroom, transport, updates, blocking, now)
    running, attended, delivering = map(ConcurrencyLimit, (settings.max_calls_in_flight, _ATTENDED, _DELIVERING))
    work = Work(runner, webhooks, loop, running, attended, delivering, now)
    watchdog, spool, cleanup, sweep = _services(work, lease, enabled, hostname)
    services = [ServiceThread(service) for service in (watchdog, spool, cleanup, sweep)]
    thread = threading.Thread(target=loop.run_forever, name="loop", daemon=True)
    thread.start()
    return Process(darkroom, holder, work, sweep, watchdog.backlog, services, threads, thread)


def _services(
    work: Work, lease: Lease, enabled: Mapping[str, ProviderSettings], hostname: str
) -> tuple[WatchdogService, Service, Service, Sweep]:
    """The background services of a process; the sweep is the last one."""
    darkroom, served = work.runner.darkroom, tuple(enabled)
    operations = [name for provider in served for name in providers.provider(provider).operations]
    started_at = datetime.now(UTC).isoformat()
    sweep = Sweep(
        repository=darkroom.repository.with_patience(_SWEEP_RETRY_SECONDS),
        holder=work.runner.holder,
        description={"hostname": hostname, "pid": os.getpid(), "started_at": started_at, "operations": operations},
        providers=served,
        running=work.running,
        in_progress=lambda: work.in_progress,
        attend=work.attend,
        run=work.run,
        lease=lease,
    )
    watchdog = WatchdogService(
        Watchdog(darkroom.settings.watchdog_seconds),
        work.loop,
        Backlog(darkroom.dispatch.app, [queue_name(name) for name in served]),
        work.running,
        redis_answers=lambda: sweep.redis_answers,
        stop=stop,
    )
    return watchdog, SpoolReport(work.runner, work.loop), Cleanup(darkroom), sweep
