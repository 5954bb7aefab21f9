"""One worker process: its holder id, its event loop, its sweep; started by Celery's bootstep and stopped by it."""

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

from .deliveries import Notifier
from .due import Lease, Sweep
from .image_store import ImageStore
from .limits import ConcurrencyLimit, MemoryBudget
from .runner import Runner
from .transport import Transport
from .updates import Updates
from .upkeep import Cleaning
from .watchdog import EXIT_CODE, Watchdog

log = logging.getLogger(__name__)

#: Redis, storage and Pillow block; they run on so many threads beside the loop
THREADS = 16
#: how long a worker goes on trying to write what it knows while Redis is away
PATIENCE_SECONDS = 86_400.0
#: how long the sweep waits for Redis before it tries again
_SWEEP_PATIENCE_SECONDS = 1.0
#: between two observations of the watchdog
_WATCH_SECONDS = 2.0
#: between two looks into the spool, and at whether there is something to clean
_TIDY_SECONDS = 60.0
#: a worker that its watchdog ends has so long for what is in flight
_END_SECONDS = 60.0
#: due jobs that are looked at at once
_CHORES = 512


def check(settings: Settings, enabled: Mapping[str, ProviderSettings]) -> None:
    """Raises SettingsError when a worker could not work with these settings."""
    if not enabled:
        keys = ", ".join(f"{name.upper()}_API_KEY" for name in providers.names())
        raise SettingsError(keys.split(", ", 1)[0], f"no provider's key is set (any of {keys})", "your-secret-key")
    if settings.callback_base is None:
        log.warning(
            "DARKROOM_PUBLIC_URL is not set: nothing can call back, operations run in their sync or polled mode"
        )


@dataclass(frozen=True)
class Work:
    """What a process has in hand: jobs that have a slot, and chores that the sweep brings."""

    runner: Runner
    notifier: Notifier
    loop: asyncio.AbstractEventLoop
    slots: ConcurrencyLimit
    #: due jobs that are looked at; they must not wait for a slot, since a deadline ends what holds one
    chores: ConcurrencyLimit
    #: jobs that tell of themselves; a slow receiver must keep neither of the others waiting
    deliveries: ConcurrencyLimit
    now: Callable[[], datetime]
    #: the loop itself does not keep a task alive
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def admit(self, job_id: str) -> None:
        """Runs a job as soon as there is room for it; blocks until then."""
        if self.slots.take(job_id, wait=True):
            self.run(job_id)

    def run(self, job_id: str) -> None:
        """Runs a job that has a slot."""
        self._spawn(job_id, self.slots, self.runner.run(job_id))

    def attend(self, job: Job, living: frozenset[str]) -> None:
        """Looks at a due job, unless that is being done; without room the sweep brings it again."""
        if schedule.due_deliveries(job, self.now()) and self.deliveries.take(job.id, wait=False):
            self._spawn(job.id, self.deliveries, self.notifier.deliver(job))
        if self.chores.take(job.id, wait=False):
            self._spawn(job.id, self.chores, self.runner.attend(job, living))

    @property
    def in_hand(self) -> frozenset[str]:
        return self.slots.taken | self.chores.taken | self.deliveries.taken

    def close(self) -> None:
        """Takes nothing new."""
        self.slots.close()
        self.chores.close()
        self.deliveries.close()

    def _spawn(self, job_id: str, slots: ConcurrencyLimit, work: Coroutine[Any, Any, None]) -> None:
        async def worked() -> None:
            try:
                await work
            except Exception:
                log.exception("job %s", job_id)
            finally:
                slots.free(job_id)

        def begin() -> None:
            task = self.loop.create_task(worked())
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
    threads: ThreadPoolExecutor
    thread: threading.Thread

    def stop(self) -> None:
        """Finishes what is in flight; what cannot finish in time is handed back, or marked as not seen."""
        self.work.close()
        self.sweep.rest()
        give_up_at = time.monotonic() + self.darkroom.settings.drain_seconds
        while self.work.in_hand and time.monotonic() < give_up_at:
            time.sleep(0.05)
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_all(), self.work.loop).result(timeout=5)
        with suppress(Unavailable):
            self._hand_back()
        self.sweep.stop()
        self.darkroom.repository.close()
        self.work.loop.call_soon_threadsafe(self.work.loop.stop)
        self.thread.join(timeout=5)
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _hand_back(self) -> None:
        repository = self.sweep.repository
        for job_id in repository.held(self.holder):
            repository.update(job_id, lambda job, now: transitions.outcome_lost(job, self.holder, now))
        repository.leave(self.holder)


@dataclass
class Watch:
    """What else happens in the sweep's rhythm: the watchdog is fed, the spool looked into, and what is over cleaned away."""

    work: Work
    darkroom: Darkroom
    watchdog: Watchdog
    cleaning: Cleaning
    providers: Sequence[str]
    _at: float = 0.0
    _tidied_at: float = 0.0

    def looked(self, redis_answers: bool) -> None:
        """After each look of the sweep."""
        if not redis_answers:
            self.watchdog.rested()
        elif time.monotonic() - self._at >= _WATCH_SECONDS:
            self._at = time.monotonic()
            self._observe()
        if redis_answers and time.monotonic() - self._tidied_at >= _TIDY_SECONDS:
            self._tidied_at = time.monotonic()
            asyncio.run_coroutine_threadsafe(self.work.runner.resume_spooled(), self.work.loop)
            self.work.loop.call_soon_threadsafe(self.work.loop.run_in_executor, None, self.cleaning.clean)
        if (verdict := self.watchdog.verdict) is not None:
            log.critical("this worker ends itself, exit code %d: %s", EXIT_CODE, verdict)
            threading.Thread(target=_end, name="watchdog").start()
            self.watchdog.rested()

    def _observe(self) -> None:
        self.work.loop.call_soon_threadsafe(self.watchdog.looped)
        if self.darkroom.settings.broker_is_redis:
            waiting = self.darkroom.repository.waiting([queue_name(name) for name in self.providers])
            slots = self.work.slots
            self.watchdog.observed(waiting=waiting, room=slots.room, consumed=slots.asked)


def _end() -> None:
    """Finishes what can be finished, and ends the process whatever is stuck."""
    threading.Timer(_END_SECONDS, os._exit, [EXIT_CODE]).start()
    stop()
    os._exit(EXIT_CODE)


async def _cancel_all() -> None:
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


_process: Process | None = None


def start(hostname: str, checkpoint: Callable[[str], None] = lambda _: None) -> Process:
    """Starts this process's loop and sweep."""
    global _process  # noqa: PLW0603 - one worker process has one
    settings, enabled = Settings.read(), enabled_providers()
    check(settings, enabled)
    _process = assemble(settings, enabled, hostname, checkpoint)
    _process.sweep.start()
    return _process


def admit(job_id: str) -> None:
    """Hands a job to this process's loop."""
    if _process is None:
        raise RuntimeError("this worker process was not started")
    _process.work.admit(job_id)


def stop() -> None:
    """Stops what `start` started."""
    global _process  # noqa: PLW0603
    if _process is not None:
        _process.stop()
        _process = None


def assemble(
    settings: Settings,
    enabled: Mapping[str, ProviderSettings],
    hostname: str,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> Process:
    """Puts a process together; nothing is claimed before its sweep is started."""
    darkroom = Darkroom.open(settings, patience_seconds=PATIENCE_SECONDS)
    holder = secrets.token_hex(8)
    loop = uvloop.new_event_loop()
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blocking")

    def blocking(call: Callable[[], Any]) -> Awaitable[Any]:
        return loop.run_in_executor(threads, call)

    transport = Transport(allowed_networks=settings.allowed_private_networks)
    keeper = _keeper(darkroom, enabled, transport, blocking, checkpoint)
    updates = Updates(darkroom.repository, blocking)
    lease = Lease()
    runner = Runner(darkroom, holder, keeper, transport, updates, blocking, checkpoint, lambda: lease.held)
    notifier = Notifier(darkroom, transport, updates, blocking, keeper.now)
    slots = ConcurrencyLimit(settings.max_calls_in_flight), ConcurrencyLimit(_CHORES), ConcurrencyLimit(_CHORES)
    work = Work(runner, notifier, loop, *slots, now=keeper.now)
    sweep = _sweep(work, lease, enabled, hostname)
    thread = threading.Thread(target=loop.run_forever, name="loop", daemon=True)
    thread.start()
    return Process(darkroom, holder, work, sweep, threads, thread)


def _keeper(
    darkroom: Darkroom,
    enabled: Mapping[str, ProviderSettings],
    transport: Transport,
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
    checkpoint: Callable[[str], None],
) -> ImageStore:
    settings = darkroom.settings
    return ImageStore(
        settings=settings,
        providers=enabled,
        storage=darkroom.storage,
        spool=Spool(settings.spool_dir / "images", settings.spool_max_bytes),
        transport=transport,
        room=MemoryBudget(settings.max_bytes_in_flight),
        blocking=blocking,
        now=darkroom.repository.clock.now,
        checkpoint=checkpoint,
    )


def _sweep(work: Work, lease: Lease, enabled: Mapping[str, ProviderSettings], hostname: str) -> Sweep:
    darkroom = work.runner.darkroom
    watchdog = Watchdog(darkroom.settings.watchdog_seconds)
    return Sweep(
        repository=darkroom.repository.patient(_SWEEP_PATIENCE_SECONDS),
        holder=work.runner.holder,
        description=_description(hostname, enabled),
        providers=tuple(enabled),
        slots=work.slots,
        in_hand=lambda: work.in_hand,
        attend=work.attend,
        run=work.run,
        lease=lease,
        looked=Watch(work, darkroom, watchdog, Cleaning(darkroom), tuple(enabled)).looked,
    )


def _description(hostname: str, enabled: Mapping[str, ProviderSettings]) -> Mapping[str, Any]:
    """What a worker tells of itself, for `doctor` and for whoever waits for a job that nobody serves."""
    served = [name for vendor in enabled for name in providers.provider(vendor).operations]
    started_at = datetime.now(UTC).isoformat()
    return {"hostname": hostname, "pid": os.getpid(), "started_at": started_at, "operations": served}
