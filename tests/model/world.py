"""A small world around the real transitions: one job, two workers, a store, a provider, the network, and people.

A state is a tuple of small values; `steps` yields every state that can come next, with a name for the step. Workers do what
`worker.runner` does, divided wherever a process can die. There are only two times, *now* and *later*: a step makes later come.
All dead processes are one holder, `dead`; a new process is another holder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import NamedTuple, TypeVar

from jobs import schedule, transitions
from jobs.attempt import Outcome, Recovery, find_attempt
from jobs.errors import ChargePossible, NotPossible
from jobs.images import Artifact, Missing, PendingImage, Postponed, StoreResult
from jobs.job import Job, OnUnknown, Status
from jobs.report import Charged, Code, Failed, Image, Report, Running, Source, Succeeded

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
DEADLINE = NOW + timedelta(days=2)
DEAD = "dead"
NAMES = ("w0", "w1")

T = TypeVar("T")


@dataclass(frozen=True)
class Provider:
    """The abilities of one kind of provider."""

    name: str
    recovery: Recovery = Recovery.NONE
    #: the answer to the submit is the result; otherwise it only says Running
    synchronous: bool = False
    #: the images come inside the answer
    inline: bool = False
    polled: bool = False
    calls_back: bool = False

    @property
    def keyed(self) -> bool:
        return self.recovery is Recovery.KEY


@dataclass(frozen=True)
class Setting:
    """One world to explore: a provider, the options of a job, and how much may go wrong in one life."""

    provider: Provider
    on_unknown: OnUnknown = OnUnknown.FAIL
    keep_late: bool = False
    images: int = 1
    attempts: int = 2
    #: crashes of workers, broken connections and lost answers
    faults: int = 2
    #: refusals that cost nothing
    refusals: int = 1
    #: refusals of a submission that the provider has already accepted
    lies: int = 0
    #: callbacks that are repeated
    repeats: int = 1
    #: cancels and retries by people
    people: int = 1
    #: living workers that are believed dead
    pauses: int = 1

    @property
    def name(self) -> str:
        policy = "-charge_again" if self.on_unknown is OnUnknown.CHARGE_AGAIN else ""
        more = f"{'-keep-late' if self.keep_late else ''}{'-lies' if self.lies else ''}"
        return f"{self.provider.name}{policy}{more}{f'-{self.images}' * (self.images > 1)}"


class Worker(NamedTuple):
    """The state of one worker process."""

    #: idle, ready, calling, waiting, answered, broken, holding
    at: str = "idle"
    #: the attempt that it works on
    number: int = 0
    #: what it heard from the provider
    heard: str = ""
    #: its lease ran out although it is alive
    paused: bool = False
    #: the job as it was read, for a store without compare-and-set
    known: int = -1


class World(NamedTuple):
    """One state."""

    job: int
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    #: requests on the network whose sender is gone
    orphans: tuple[int, ...] = ()
    #: for each attempt how many times the provider charged it, and its state there: "", working, done, failed
    provider: tuple[tuple[int, str], ...] = ()
    #: callbacks on the network
    mail: tuple[tuple[int, str], ...] = ()
    #: attempts whose inline images are in the storage
    stored: tuple[int, ...] = ()
    #: how many times each attempt was sent
    sent: tuple[int, ...] = ()
    #: attempts that were refused although the provider had accepted them, before we knew
    lied: tuple[int, ...] = ()
    #: attempts whose success was reported to us and accepted
    told: tuple[int, ...] = ()
    #: whether a person agreed to another charge
    word: bool = False
    faults: int = 0
    refusals: int = 0
    lies: int = 0
    repeats: int = 0
    people: int = 0
    pauses: int = 0


Step = tuple[str, World]


class Jobs:
    """The jobs that occurred, each once, and the result of each transition of each."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._ids: dict[tuple[object, ...], int] = {}
        self._known: list[Job] = []
        self._after: dict[tuple[int, object], int | str] = {}
        images = tuple(Image(index, url=f"u{index}") for index in range(setting.images))
        self.reports: dict[str, Report] = {
            "Running": Running("ext"),
            "Succeeded": Succeeded(images),
            "Busy": Failed(Code.RATE_LIMITED, "", retryable=True, charged=Charged.NO, not_now=True),
            "Refused": Failed(Code.RATE_LIMITED, "", retryable=True, charged=Charged.NO, not_sent=True),
            "Failed": Failed(Code.MODERATED, "", charged=Charged.NO),
            "Lost": Failed(Code.PROVIDER_ERROR, "", retryable=True, charged=Charged.UNKNOWN),
        }
        self.first = self._met(
            Job(
                id="job",
                operation="provider.paint",
                params={},
                status=Status.QUEUED,
                created_at=NOW,
                updated_at=NOW,
                deadline_at=DEADLINE,
                deadline_seconds=(DEADLINE - NOW).total_seconds(),
                images_expected=setting.images,
                wake_at=NOW,
                attempts_allowed=setting.attempts,
                on_unknown=setting.on_unknown,
                keep_late=setting.keep_late,
            )
        )

    def __getitem__(self, number: int) -> Job:
        return self._known[number]

    def __len__(self) -> int:
        return len(self._known)

    def changed(self, number: int, what: object, change: Callable[[Job], Job]) -> int | str:
        """The job after a change that `what` names; the error's name when it raised."""
        key = number, what
        if key not in self._after:
            try:
                self._after[key] = self._met(change(self._known[number]))
            except ChargePossible:
                self._after[key] = "ChargePossible"
            except NotPossible:
                self._after[key] = "NotPossible"
        return self._after[key]

    def _met(self, job: Job) -> int:
        plain = _plain(job)
        key = (
            plain.status,
            plain.holder,
            plain.wake_at,
            plain.deadline_at,
            plain.attempts,
            plain.attempts_allowed,
            plain.pending,
            plain.artifacts,
            plain.missing,
            plain.error,
            plain.given_up,
            plain.finished_at,
        )
        if key not in self._ids:
            self._ids[key] = len(self._known)
            self._known.append(plain)
        return self._ids[key]

    def artifacts(self, number: int, indexes: tuple[int, ...]) -> dict[int, Artifact]:
        return {index: Artifact(index, f"{number}/{index}", "image/png", 1, "", 1, 1, number) for index in indexes}


def _coarse(at: datetime | None, later: datetime = LATER) -> datetime | None:
    return at if at is None else NOW if at <= NOW else later


def _plain_image(image: PendingImage) -> PendingImage:
    return replace(image, retry_at=_coarse(image.retry_at), failing_since=None, tries=0, bad_tries=0)


def _plain(job: Job) -> Job:
    """The job without everything that no transition reads."""
    return replace(
        job,
        updated_at=NOW,
        wake_at=_coarse(job.wake_at),
        deadline_at=_coarse(job.deadline_at, DEADLINE),
        attempts=tuple(
            replace(attempt, started_at=NOW, ended_at=_coarse(attempt.ended_at), holder="", message=None)
            for attempt in job.attempts
        ),
        pending=tuple(_plain_image(image) for image in job.pending),
        missing=tuple(
            replace(item, message="", image=_plain_image(item.image) if item.image else None) for item in job.missing
        ),
        error=replace(job.error, message="") if job.error else None,
        given_up=replace(job.given_up, message="") if job.given_up else None,
        finished_at=_coarse(job.finished_at),
        timeline=(),
    )


@dataclass
class Model:
    """Every step that is possible in a state. Broken variants override a method or use other transitions."""

    setting: Setting
    transitions: ModuleType = transitions

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.setting)
        self.provider = self.setting.provider

    def start(self) -> World:
        setting = self.setting
        return World(
            self.jobs.first,
            faults=setting.faults,
            refusals=setting.refusals,
            lies=setting.lies,
            repeats=setting.repeats,
            people=setting.people,
            pauses=setting.pauses,
        )

    def steps(self, world: World) -> Iterator[Step]:
        """Everything that can happen next."""
        for slot in (0, 1):
            for what, after in self.worker_steps(world, slot):
                yield f"a worker {what}", after
        yield from self.sweep_steps(world)
        yield from self.provider_steps(world)
        yield from self.people_steps(world)
        yield from self.time_steps(world)

    # --- the store ------------------------------------------------------------------------------------------------

    def update(self, world: World, known: int, what: object, change: Callable[[Job], Job]) -> int:
        """Compare and set: the slower writer applies its change to the newer record, whatever it had read."""
        del known
        after = self.jobs.changed(world.job, what, change)
        assert isinstance(after, int)
        return after

    # --- workers --------------------------------------------------------------------------------------------------

    def worker_steps(self, world: World, slot: int) -> Iterator[Step]:
        me = world.workers[slot]
        match me.at:
            case "idle":
                yield from self.claim(world, slot)
            case "ready":
                yield from self.send(world, slot)
                yield "releases", self.released(world, slot)
            case "calling" | "waiting" if world.faults:
                orphans = world.orphans + ((me.number,) if me.at == "calling" else ())
                broken = world._replace(faults=world.faults - 1, orphans=tuple(sorted(orphans)))
                yield "loses its connection", put(broken, slot, me._replace(at="broken"))
            case "answered":
                yield from self.report(world, slot)
            case "broken":
                yield "reports an unknown outcome", self.lost(world, slot)
            case "holding":
                yield from self.store(world, slot)
        if me.at != "idle" and world.faults:
            yield "dies", self.died(world, slot)
        if me.at != "idle" and not me.paused and world.pauses:
            yield "stalls", put(world._replace(pauses=world.pauses - 1), slot, me._replace(paused=True))

    def claim(self, world: World, slot: int) -> Iterator[Step]:
        name = NAMES[slot]
        after = self.update(world, world.job, ("claimed", name), lambda job: self.transitions.claimed(job, name, NOW))
        if after != world.job:
            yield "claims", self.claimed(world, slot, after)

    def claimed(self, world: World, slot: int, after: int) -> World:
        job, me = self.jobs[after], Worker(paused=world.workers[slot].paused, known=world.workers[slot].known)
        if job.holder != NAMES[slot]:
            me = me._replace(known=-1)
        elif job.pending:
            me = me._replace(at="holding", number=job.pending[0].attempt)
        else:
            me = me._replace(at="ready", number=self.transitions.next_number(job))
        return put(world._replace(job=after), slot, me)

    def released(self, world: World, slot: int) -> World:
        name = NAMES[slot]
        me = world.workers[slot]
        after = self.update(world, me.known, ("released", name), lambda job: self.transitions.released(job, name, NOW))
        return put(world._replace(job=after), slot, Worker())

    def send(self, world: World, slot: int) -> Iterator[Step]:
        """The ledger first, then the bytes; the connection can be refused before the first byte."""
        name, me, provider = NAMES[slot], world.workers[slot], self.provider

        def sending(job: Job) -> Job:
            if self.transitions.next_number(job) != me.number:
                return job
            return self.transitions.submitting(
                job, name, NOW, recovery=provider.recovery, polled=provider.polled, inline=provider.inline
            )

        after = self.update(world, me.known, ("sending", name, me.number), sending)
        written = world._replace(job=after)
        if after == world.job or self.jobs[after].status is not Status.SUBMITTING:
            yield "does not send", put(written, slot, Worker())
            return
        yield "sends", self.sent(written, slot, me.number)
        if world.refusals:
            refused = me._replace(at="answered", heard="Refused")
            yield "cannot connect", put(written._replace(refusals=world.refusals - 1), slot, refused)

    def sent(self, world: World, slot: int, number: int) -> World:
        counts = world.sent + (0,) * (number - len(world.sent))
        counts = (*counts[: number - 1], counts[number - 1] + 1, *counts[number:])
        return put(world._replace(sent=counts), slot, world.workers[slot]._replace(at="calling"))

    def report(self, world: World, slot: int) -> Iterator[Step]:
        me = world.workers[slot]
        if self.provider.inline and me.heard == "Succeeded" and me.number not in world.stored:
            yield "stores the images of the answer", world._replace(stored=_with(world.stored, me.number))
            return
        name = NAMES[slot]
        inline = self.provider.inline

        def answered(job: Job) -> Job:
            return self.transitions.claimed(
                self.reported(job, me.number, me.heard, Source.ANSWER, inline=inline), name, NOW
            )

        after = self.update(world, me.known, ("answered", name, me.number, me.heard), answered)
        heard = self.took(world, me.number, me.heard)._replace(job=after)
        job = self.jobs[after]
        mine = after != world.job and job.holder == name and bool(job.pending)
        then = Worker("holding", job.pending[0].attempt, known=me.known) if mine else Worker()
        yield f"reports {me.heard} of {me.number}", put(heard, slot, then)

    def lost(self, world: World, slot: int) -> World:
        name, me = NAMES[slot], world.workers[slot]
        after = self.update(
            world,
            me.known,
            ("lost", name, me.number),
            lambda job: self.transitions.outcome_lost(job, name, NOW, number=me.number),
        )
        return put(world._replace(job=after), slot, Worker())

    def store(self, world: World, slot: int) -> Iterator[Step]:
        me = world.workers[slot]
        pending = tuple(range(self.setting.images))
        artifacts = self.jobs.artifacts(me.number, pending)
        results: dict[str, dict[int, StoreResult]] = {
            "stores all": dict(artifacts),
            "gives up all": {index: Missing(index, Code.RESULT_EXPIRED, "") for index in pending},
            "postpones all": {index: Postponed(index, 60, "") for index in pending},
        }
        if len(pending) > 1:
            results["stores one"] = {0: artifacts[0]}
            results["gives up one"] = {0: Missing(0, Code.STORAGE_ERROR, "")}
        for what, found in results.items():
            after = self.update(
                world,
                me.known,
                ("stored", what, me.number),
                lambda job, found=found: self.transitions.stored(job, me.number, found, NOW),  # type: ignore[misc]
            )
            yield what, put(world._replace(job=after), slot, Worker())

    def died(self, world: World, slot: int) -> World:
        """The process is gone, and another one starts in its place; its request stays on the network."""
        me, name = world.workers[slot], NAMES[slot]
        orphans = _with_each(world.orphans, me.number) if me.at == "calling" else world.orphans
        after = self.jobs.changed(
            world.job, ("died", name), lambda job: replace(job, holder=DEAD) if job.holder == name else job
        )
        assert isinstance(after, int)
        return put(world._replace(job=after, faults=world.faults - 1, orphans=orphans), slot, Worker())

    # --- the sweep ------------------------------------------------------------------------------------------------

    def sweep_steps(self, world: World) -> Iterator[Step]:
        job = self.jobs[world.job]
        if job.holder is not None and self.believed_dead(world, job.holder):
            yield "sweep rescues", self.rescued(world, job.holder)
        if schedule.is_overdue(job, NOW):
            after = self.update(world, world.job, "expired", lambda job: self.transitions.expired(job, NOW))
            yield "sweep ends it at its deadline", world._replace(job=after)
        elif schedule.is_poll_due(job, NOW):
            yield self.polled(world)

    def believed_dead(self, world: World, holder: str) -> bool:
        return holder == DEAD or world.workers[NAMES.index(holder)].paused

    def rescued(self, world: World, holder: str) -> World:
        job = self.jobs[world.job]
        number = last_number(job)
        if job.status is Status.SUBMITTING and self.provider.inline and number in world.stored:
            return self.told(world, number, "Succeeded", Source.ANSWER, inline=True)
        after = self.update(
            world, world.job, ("rescued", holder), lambda job: self.transitions.outcome_lost(job, holder, NOW)
        )
        return world._replace(job=after)

    def polled(self, world: World) -> Step:
        number = last_number(self.jobs[world.job])
        _, state = _attempt(world, number)
        heard = {"working": "Running", "done": "Succeeded", "failed": "Failed"}.get(state)
        if heard is None:
            after = self.update(world, world.job, "asked", lambda job: self.transitions.poll_postponed(job, NOW))
            return "poll brings no news", world._replace(job=after)
        return f"poll says {heard} of {number}", self.told(world, number, heard, Source.POLL)

    # --- the provider -----------------------------------------------------------------------------------------------

    def provider_steps(self, world: World) -> Iterator[Step]:
        for slot in (0, 1):
            yield from self.heard(world, slot)
        for number in sorted(set(world.orphans)):
            rest = world._replace(orphans=_without(world.orphans, number))
            yield f"request {number} is lost on the network", rest
            for what, _, after in self.arrived(rest, number):
                yield f"{what}, nobody hears", after
        for number, (charges, state) in enumerate(world.provider, start=1):
            if state == "working":
                yield f"provider finishes {number}", self.finished(world, number, charges, "done")
                if world.refusals:
                    failed = self.finished(world._replace(refusals=world.refusals - 1), number, 0, "failed")
                    yield f"provider fails {number}", failed
        for letter in sorted(set(world.mail)):
            yield from self.called_back(world, letter)

    def heard(self, world: World, slot: int) -> Iterator[Step]:
        """The submission of a worker reaches the provider, and is answered now or later."""
        me = world.workers[slot]
        if me.at == "waiting":
            yield from self.answered(world, slot)
        if me.at != "calling":
            return
        waiting = put(world, slot, me._replace(at="waiting"))
        for what, heard, after in self.arrived(waiting, me.number):
            yield what, put(after, slot, me._replace(at="answered", heard=heard))
        charges, state = _attempt(world, me.number)
        if world.lies and not state:
            mail = tuple(sorted((*world.mail, (me.number, "Running"))))
            begun = _entered(waiting, me.number, charges + 1, "working")
            yield f"provider begins {me.number} and calls back", begun._replace(mail=mail)

    def arrived(self, world: World, number: int) -> Iterator[tuple[str, str, World]]:
        """The request arrives: what happens, what is answered, and the world after that."""
        charges, state = _attempt(world, number)
        if self.provider.keyed and state:
            heard = {"working": "Running", "done": "Succeeded", "failed": "Failed"}[state]
            yield f"provider knows {number} already", heard, world
            return
        end = "done" if self.provider.synchronous else "working"
        accepted = _entered(world, number, charges + 1, end)
        heard = "Succeeded" if self.provider.synchronous else "Running"
        yield f"provider accepts {number}", heard, accepted
        if world.faults:
            yield f"provider accepts {number} and answers 502", "Lost", accepted._replace(faults=world.faults - 1)
        if world.refusals:
            less = world._replace(refusals=world.refusals - 1)
            yield f"provider is too busy for {number}", "Busy", less
            yield f"provider refuses {number}", "Failed", _entered(less, number, charges, "failed")

    def answered(self, world: World, slot: int) -> Iterator[Step]:
        """The answer to a submission that the provider has begun; a gateway may refuse it all the same."""
        me = world.workers[slot]
        yield f"provider answers {me.number}", put(world, slot, me._replace(at="answered", heard="Running"))
        line = find_attempt(self.jobs[world.job].attempts, me.number)
        is_known = line is not None and line.outcome is Outcome.ACCEPTED
        if world.lies and (is_known or self.provider.keyed):
            lied = world.lied if is_known else _with(world.lied, me.number)
            less = world._replace(lies=world.lies - 1, lied=lied)
            busy = put(less, slot, me._replace(at="answered", heard="Busy"))
            yield f"provider is too busy for {me.number}, which has begun", busy

    def finished(self, world: World, number: int, charges: int, state: str) -> World:
        after = _entered(world, number, charges, state)
        if not self.provider.calls_back:
            return after
        letter = number, "Succeeded" if state == "done" else "Failed"
        return after._replace(mail=tuple(sorted((*world.mail, letter))))

    def called_back(self, world: World, letter: tuple[int, str]) -> Iterator[Step]:
        number, heard = letter
        told = self.told(world, number, heard, Source.CALLBACK)
        yield f"callback says {heard} of {number}", told._replace(mail=_without(world.mail, letter))
        if world.repeats:
            yield f"callback says {heard} of {number}, and will again", told._replace(repeats=world.repeats - 1)

    # --- news -----------------------------------------------------------------------------------------------------

    def told(self, world: World, number: int, heard: str, source: Source, *, inline: bool = False) -> World:
        after = self.update(
            world,
            world.job,
            ("reported", number, heard, source, inline),
            lambda job: self.reported(job, number, heard, source, inline=inline),
        )
        return self.took(world, number, heard)._replace(job=after)

    def reported(self, job: Job, number: int, heard: str, source: Source, *, inline: bool) -> Job:
        found = (
            self.jobs.artifacts(number, tuple(range(self.setting.images))) if inline and heard == "Succeeded" else {}
        )
        return self.transitions.reported(job, number, self.jobs.reports[heard], NOW, source=source, inline=dict(found))

    def took(self, world: World, number: int, heard: str) -> World:
        return world._replace(told=_with(world.told, number)) if heard == "Succeeded" else world

    # --- people and time ------------------------------------------------------------------------------------------

    def people_steps(self, world: World) -> Iterator[Step]:
        if not world.people:
            return
        less = world._replace(people=world.people - 1)
        after = self.update(world, world.job, "canceled", lambda job: self.transitions.canceled(job, NOW))
        if after != world.job:
            yield "a person cancels", less._replace(job=after)
        retried = self.jobs.changed(world.job, "retried", lambda job: self.transitions.retried(job, NOW))
        if isinstance(retried, int):
            yield "a person retries", less._replace(job=retried)
        elif retried == "ChargePossible":
            paid = self.jobs.changed(
                world.job, "paid", lambda job: self.transitions.retried(job, NOW, may_charge_again=True)
            )
            assert isinstance(paid, int)
            yield "a person retries and may pay again", less._replace(job=paid, word=True)

    def time_steps(self, world: World) -> Iterator[Step]:
        job = self.jobs[world.job]
        if job.wake_at == LATER or any(image.retry_at == LATER for image in job.pending):
            yield "later comes", self.later(world)
        if job.deadline_at > NOW and not job.status.is_final and job.status is not Status.STORING:
            after = self.jobs.changed(world.job, "deadline", lambda job: replace(job, deadline_at=NOW))
            assert isinstance(after, int)
            yield "the deadline comes", world._replace(job=after)

    def later(self, world: World) -> World:
        def change(job: Job) -> Job:
            pending = tuple(replace(image, retry_at=image.retry_at and NOW) for image in job.pending)
            return replace(job, wake_at=job.wake_at and NOW, pending=pending)

        after = self.jobs.changed(world.job, "later", change)
        assert isinstance(after, int)
        return world._replace(job=after)


# --- small values -----------------------------------------------------------------------------------------------------


def put(world: World, slot: int, worker: Worker) -> World:
    """The state with this worker in its slot."""
    workers = (worker, world.workers[1]) if slot == 0 else (world.workers[0], worker)
    return world._replace(workers=workers)


def last_number(job: Job) -> int:
    """The highest number of an attempt; 0 without one."""
    return max((attempt.number for attempt in job.attempts), default=0)


def _with(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    return tuple(sorted({*numbers, number}))


def _with_each(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    return tuple(sorted((*numbers, number)))


def _without(items: tuple[T, ...], item: T) -> tuple[T, ...]:
    place = items.index(item)
    return items[:place] + items[place + 1 :]


def _attempt(world: World, number: int) -> tuple[int, str]:
    return world.provider[number - 1] if number <= len(world.provider) else (0, "")


def _entered(world: World, number: int, charges: int, state: str) -> World:
    entries = world.provider + ((0, ""),) * (number - len(world.provider))
    return world._replace(provider=(*entries[: number - 1], (charges, state), *entries[number:]))
