"""One simulated run of a whole system from one seed: producers, workers that die and stall, providers, a receiver, people.

The transitions, the repository, the runner, the image store and the sweep are the real ones; the clock of Redis is simulated.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fakeredis
from pydantic import SecretStr

from jobs import callback_url, providers
from jobs.attempt import Outcome, find_attempt
from jobs.darkroom import Darkroom
from jobs.errors import ChargePossible, NotPossible
from jobs.job import Job, Status
from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.queue import Dispatch, application, queue_name
from jobs.report import Charged, Code
from jobs.request import Request
from jobs.settings import ProviderSettings, Settings, provider_settings
from jobs.state.repository import Created, Existing, Message, Repository
from jobs.storage.spool import Spool
from worker.calls import ProviderCalls
from worker.due import Sweep
from worker.image_store import ImageStore
from worker.inputs import Inputs
from worker.limits import ConcurrencyLimit, MemoryBudget
from worker.process import Work
from worker.runner import Runner
from worker.updates import Updates

from .clock import SimulatedClock, SimulatedLoop, simulated_redis
from .remote import RemoteProviders, png
from .storage import MemoryStorage

KEYS = ("a-secret-of-the-simulation",)
#: of each job, in seconds
DEADLINE_SECONDS = 60.0
#: how long jobs are enqueued, in seconds
ARRIVALS_SECONDS = 30.0
#: a job that is not final after so many seconds is stuck
PATIENCE_SECONDS = 300.0
#: workers that run at once
PROCESSES = 3
#: how often a worker sweeps, in seconds
TICK_SECONDS = 1.0

INPUT = "https://input.example/photo.png"


def request(number: int) -> Request:
    """The request of one job; its prompt names it everywhere."""
    prompt = f"p{number}"
    kinds: tuple[Callable[[], Request], ...] = (
        lambda: deepmode.Generate(model_id="m", prompt=prompt, num_images=1 + number % 3),
        lambda: chainhub.IdeogramRemix(image_file=INPUT, prompt=prompt, num_images=1 + number % 2),
        lambda: phota.Remix(
            input_image=INPUT,
            reference_image=INPUT,
            prompt=prompt,
            num_output_images=1 + number % 2,
            output_format="png",
            response_mode="urls",
        ),
        lambda: aimlapi.ReveRemix(image_urls=[INPUT], prompt=prompt, convert_base64_to_url=False),
    )
    return kinds[number % 4]()


def settings_of_providers() -> Mapping[str, ProviderSettings]:
    def of(name: str) -> ProviderSettings:
        environ = {f"{name.upper()}_API_KEY": "key", f"{name.upper()}_BASE_URL": f"https://{name}.example"}
        return provider_settings(name, environ | ({"PHOTA_ASYNC": "true"} if name == "phota" else {}))

    return {name: of(name) for name in providers.names()}


class ErrorLog(logging.Handler):
    """The errors that a worker logged; there must be none."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


@dataclass
class Process:
    """One worker process: it consumes messages, sweeps and runs jobs; it can die at any await, and stall."""

    world: World
    holder: str
    darkroom: Darkroom
    work: Work
    sweep: Sweep
    updates: Updates
    chance: random.Random
    stalled_until: float = 0.0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        self.darkroom.repository.tick(self.holder, {}, 0)
        self.tasks = [asyncio.ensure_future(self._consume()), asyncio.ensure_future(self._look())]

    def kill(self) -> None:
        """Stop at once; requests that were sent go on."""
        self.world.remote.troubled |= self.world.prompts(self.work.in_progress)
        self.work.close()
        for task in (*self.tasks, *self.work._tasks, *filter(None, [self.updates._writer])):
            task.cancel()

    async def _consume(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.3, 1.5))
            for provider in providers.names():
                for message in self.world.redis.rpop(queue_name(provider), 100) or ():
                    self._received(message)

    def _received(self, message: bytes) -> None:
        job_id = self.world.job_of(message)
        if self.stalled_until + TICK_SECONDS > asyncio.get_running_loop().time():
            self.world.remote.troubled |= self.world.prompts(frozenset((job_id,)))
        drawn = self.chance.random()
        for _ in range(0 if drawn < 0.03 else 2 if drawn < 0.06 else 1):
            if self.work.running.acquire(job_id, wait=False):
                self.work.run(job_id)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        reconciled_at = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if loop.time() < self.stalled_until:
                continue
            reconcile = loop.time() - reconciled_at >= 5
            self.sweep._reconciled_at = float("-inf") if reconcile else float("inf")
            reconciled_at = loop.time() if reconcile else reconciled_at
            self.sweep.run_once()


class SeededRepository(Repository):
    """Gives new jobs ids that follow from the seed, since ids decide the order of equals."""

    seed: int
    dispatch: Dispatch

    def create(self, job: Job, *, message: Message | None = None, **options: Any) -> Created | Existing:
        named = replace(job, id=id_of(self.seed, job.metadata["number"]))
        return super().create(named, message=self.dispatch.message(named), **options)


def id_of(seed: int, number: int) -> str:
    """The id of a job in the run with this seed."""
    return hashlib.sha256(f"{seed} job {number}".encode()).hexdigest()[:32]


@dataclass
class World:
    """One run, with everything that takes part in it."""

    seed: int
    jobs: int
    folder: Path

    def __post_init__(self) -> None:
        self.loop = SimulatedLoop()
        self.chance = random.Random(f"{self.seed} world")
        self.remote = RemoteProviders(self.seed, self._called_back)
        self.storage = MemoryStorage(random.Random(f"{self.seed} storage"))
        self.providers = settings_of_providers()
        self.settings = Settings(
            redis_url="redis://simulated:6379/0",
            public_url="https://darkroom.example",
            secret_keys=tuple(SecretStr(key) for key in KEYS),
            spool_dir=self.folder,
        )
        self.dispatch = Dispatch(application(self.settings), broker_is_redis=True)
        self.ids: dict[str, int] = {}
        #: jobs that a person retried although it may be charged again
        self.charged_again: set[str] = set()
        self.processes: list[Process] = []
        self.born = 0
        self.errors = ErrorLog()

    def run(self) -> Counter[str]:
        """Run until every job is final, and return the counts. Raises AssertionError with the seed."""
        random.seed(self.seed)
        asyncio.set_event_loop(self.loop)
        try:
            with simulated_redis(self.loop) as server, self._listening():
                self.server = server
                self.redis = fakeredis.FakeRedis(server=server)
                self.repository = self._repository(0.0)
                self.darkroom = Darkroom(self.settings, self.repository, self.storage, self.dispatch)
                self.loop.run_until_complete(self._run())
                return self._check()
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    # --- what happens ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        for _ in range(PROCESSES):
            self._begin()
        tasks = [asyncio.ensure_future(doing) for doing in (self._produce(), self._disturb())]
        await tasks[0]
        await self._until(lambda: self.loop.seconds >= PATIENCE_SECONDS or not self._open())
        tasks[1].cancel()
        await self._until(lambda: not self.remote.busy)
        await asyncio.sleep(30)  # late results are stored too
        for process in self.processes:
            process.kill()
        await asyncio.sleep(0)

    async def _until(self, over: Callable[[], bool]) -> None:
        while not over():  # noqa: ASYNC110 - simulated seconds cost nothing
            await asyncio.sleep(2)

    def _open(self) -> bool:
        counted = self.repository.count()
        return any(counted[status] for status in Status if not status.is_final)

    async def _produce(self) -> None:
        for number in range(self.jobs):
            await asyncio.sleep(self.chance.expovariate(self.jobs / ARRIVALS_SECONDS))
            policy = "charge_again" if self.chance.random() < 0.1 else "fail"
            name = id_of(self.seed, number)
            self.ids[name] = number
            self.darkroom.enqueue(
                request(number),
                deadline_seconds=DEADLINE_SECONDS,
                on_unknown=policy,
                keep_late=self.chance.random() < 0.5,
                metadata={"number": number},
                idempotency_key=f"order-{number}" if number % 3 == 0 else None,
            )
            if self.chance.random() < 0.04:
                asyncio.ensure_future(self._person(name, self.chance.uniform(0, 20)))  # noqa: RUF006 - the loop ends with it

    async def _person(self, job_id: str, after: float) -> None:
        """Cancels a job; half of them retry it."""
        await asyncio.sleep(after)
        self.darkroom.cancel(job_id)
        if self.ids[job_id] % 2:
            await asyncio.sleep(3)
            if f"p{self.ids[job_id]}" in self.remote.lied:
                self.charged_again.add(job_id)  # the ledger says that nothing was charged
            with suppress(NotPossible):
                try:
                    self.darkroom.retry(job_id)
                except ChargePossible:
                    self.charged_again.add(job_id)
                    self.darkroom.retry(job_id, may_charge_again=True)

    async def _disturb(self) -> None:
        """A process dies or stalls every few seconds."""
        while True:
            await asyncio.sleep(self.chance.uniform(3, 12))
            victim = self.chance.randrange(len(self.processes))
            if self.chance.random() < 0.3:
                self.processes[victim].stalled_until = self.loop.seconds + self.chance.uniform(9, 20)
                self.remote.troubled |= self.prompts(self.processes[victim].work.in_progress)
                continue
            self.processes.pop(victim).kill()
            await asyncio.sleep(self.chance.uniform(0, 3))
            self._begin()

    def _called_back(self, provider: str, token: str, body: Any) -> None:
        """The receiver of callbacks."""
        job_id, number = callback_url.verify(provider, token, KEYS)
        operation = providers.operation(self.repository.get(job_id).operation)
        self.darkroom.report(job_id, number, operation.read_callback(body))

    # --- processes ------------------------------------------------------------------------------------------------

    def _repository(self, ahead_seconds: float) -> Repository:
        repository = SeededRepository(fakeredis.FakeRedis(server=self.server), retention_seconds=86_400)
        repository.seed, repository.dispatch = self.seed, self.dispatch
        repository.clock = SimulatedClock(self.loop, ahead_seconds)
        return repository

    def _begin(self) -> None:
        self.born += 1
        chance = random.Random(f"{self.seed} process {self.born}")
        darkroom = replace(self.darkroom, repository=self._repository(chance.uniform(-0.02, 0.02)))
        holder = f"holder-{self.born}"

        async def blocking(call: Callable[[], Any]) -> Any:
            await asyncio.sleep(chance.uniform(0.0005, 0.01))
            done = call()
            await asyncio.sleep(chance.uniform(0.0005, 0.01))
            return done

        transport: Any = self.remote
        sender: Any = None  # no job here has a webhook
        repository, now = darkroom.repository, darkroom.repository.clock.now
        calls = ProviderCalls(self.settings, self.providers, transport, Inputs(self.storage, transport, blocking))
        images = ImageStore(
            max_image_bytes=self.settings.max_image_bytes,
            storage=self.storage,
            spool=Spool(self.folder / "images", 1 << 30),
            transport=transport,
            calls=calls,
            budget=MemoryBudget(64 << 20),
            blocking=blocking,
            now=now,
        )
        updates = Updates(repository, blocking)
        runner = Runner(darkroom, holder, calls, images, updates, blocking)
        limits = ConcurrencyLimit(1000), ConcurrencyLimit(512), ConcurrencyLimit(512)
        work = Work(runner, sender, self.loop, *limits, now=now)
        sweep = Sweep(
            repository=repository,
            holder=holder,
            description={},
            providers=providers.names(),
            running=work.running,
            in_progress=lambda: work.in_progress,
            attend=work.attend,
            run=work.run,
        )
        process = Process(self, holder, darkroom, work, sweep, updates, chance)
        self.processes.append(process)
        process.start()

    @staticmethod
    def job_of(message: bytes) -> str:
        """The job id in a message."""
        body: str = json.loads(message)["body"]
        return str(json.loads(base64.b64decode(body))[0][0])

    def prompts(self, ids: frozenset[str]) -> set[str]:
        return {f"p{self.ids[job_id]}" for job_id in ids if job_id in self.ids}

    @contextmanager
    def _listening(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in ("worker", "darkroom")]
        propagated = [logger.propagate for logger in loggers]
        for logger in loggers:
            logger.addHandler(self.errors)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, propagate in zip(loggers, propagated, strict=True):
                logger.removeHandler(self.errors)
                logger.propagate = propagate

    # --- what must hold -------------------------------------------------------------------------------------------

    def _check(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        found = self.found = self.repository.get_many(list(self.ids))
        for job_id, number in self.ids.items():
            job = found[job_id]
            assert job is not None, self._report(job_id, "is lost")
            for sentence, holds in _SENTENCES.items():
                assert holds(self, job, f"p{number}"), self._report(job_id, sentence, job)
            counts[job.status] += 1
            counts["unknown"] += bool(job.error and job.error.code is Code.OUTCOME_UNKNOWN)
            counts["images"] += len(job.artifacts)
            counts["rescued"] += any(attempt.outcome is Outcome.UNKNOWN for attempt in job.attempts)
            counts["refused for now"] += any(attempt.refusals for attempt in job.attempts)
            counts["paid more than once, as allowed"] += self.remote.charged[f"p{number}"] > 1
        assert not self.errors.messages, self._report("", self.errors.messages[0])
        assert self.redis.zcard("darkroom:due") == 0, self._report("", "a complete job is in the due set")
        assert not self.redis.keys("darkroom:held:*"), self._report("", "a complete job has a holder")
        counts["jobs"] = len(self.ids)
        return counts

    def _report(self, job_id: str, sentence: str, job: Job | None = None) -> str:
        lines = [f"  {event.at:%H:%M:%S.%f} {event.what}" for event in job.timeline] if job else []
        ledger = [f"  {attempt}" for attempt in job.attempts] if job else []
        what = f"job {self.ids.get(job_id, '?')} {job.operation if job else ''} {job.error if job else ''}"
        replay = f"replay with: python -m simulation --seed {self.seed} --jobs {self.jobs}"
        return "\n".join([f"seed {self.seed}: {what}: {sentence}; {replay}", *lines, *ledger])


def _is_over(world: World, job: Job, prompt: str) -> bool:
    return job.status.is_final and not job.pending and job.holder is None


def _says_why(world: World, job: Job, prompt: str) -> bool:
    return (job.status is Status.FAILED) == (job.error is not None)


def _is_charged_once(world: World, job: Job, prompt: str) -> bool:
    return world.remote.charged[prompt] <= 1 or job.on_unknown == "charge_again" or job.id in world.charged_again


def _has_doubts_on_the_ledger(world: World, job: Job, prompt: str) -> bool:
    is_doubtful = any(attempt.charged is not Charged.NO for attempt in job.attempts)
    return is_doubtful or not world.remote.charged[prompt] or prompt in world.remote.lied


def _outlasts_refusals(world: World, job: Job, prompt: str) -> bool:
    is_refused = job.attempt is not None and job.attempt.is_refused
    codes = (Code.DEADLINE, Code.INVALID_REQUEST)  # an input image that was cut short
    return not is_refused or job.error is None or job.error.code in codes


def _has_ended_attempts(world: World, job: Job, prompt: str) -> bool:
    return all(attempt.outcome is not Outcome.SENDING for attempt in job.attempts)


def _has_each_image_once(world: World, job: Job, prompt: str) -> bool:
    places = [item.index for item in job.artifacts] + [item.index for item in job.missing]
    if job.status is Status.SUCCEEDED and sorted(places) != list(range(job.images_expected)):
        return False
    stored = {key: hashlib.sha256(content).hexdigest() for key, content in world.storage.of(job.id).items()}
    return len(set(places)) == len(places) and all(stored.get(item.key) == item.sha256 for item in job.artifacts)


def _has_its_own_images(world: World, job: Job, prompt: str) -> bool:
    own = {hashlib.sha256(png(f"/{prompt}/inline")).hexdigest()}
    own |= {
        hashlib.sha256(png(f"/{prompt}/{number}/{index}.png")).hexdigest()
        for number in range(1, world.remote.submits(prompt) + 1)
        for index in range(job.images_expected)
    }
    return all(item.sha256 in own for item in job.artifacts)


def _has_each_accepted_callback(world: World, job: Job, prompt: str) -> bool:
    numbers = [int(token.split(".")[1]) for token in world.remote.accepted.get(prompt, ())]
    attempts = [find_attempt(job.attempts, number) for number in numbers]
    if any(attempt is None or attempt.outcome not in (Outcome.SUCCEEDED, Outcome.SURPLUS) for attempt in attempts):
        return False
    # A result after a cancel is recorded and not stored; a person who retries then accepts another charge.
    return not numbers or job.status is not Status.FAILED or bool(job.missing) or job.id in world.charged_again


def _is_unknown_for_a_reason(world: World, job: Job, prompt: str) -> bool:
    unknown = job.error is not None and job.error.code is Code.OUTCOME_UNKNOWN
    return not unknown or prompt in world.remote.troubled


_SENTENCES: Mapping[str, Callable[[World, Job, str], bool]] = {
    "it is not final": _is_over,
    "its record does not say why it failed": _says_why,
    "it was charged twice": _is_charged_once,
    "a charge is not on its ledger": _has_doubts_on_the_ledger,
    "an attempt is still being sent": _has_ended_attempts,
    "an image is not stored once": _has_each_image_once,
    "an image belongs to another job": _has_its_own_images,
    "an accepted callback is lost": _has_each_accepted_callback,
    "its outcome is unknown without a reason": _is_unknown_for_a_reason,
    "it failed because its provider refused it for now": _outlasts_refusals,
}
