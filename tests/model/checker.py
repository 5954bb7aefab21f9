"""Explores every state of a world to a depth, and names the first sentence of the design that is broken, with the steps to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from jobs import schedule
from jobs.attempt import Outcome, find_attempt
from jobs.job import Job, Status
from jobs.report import Charged, Code, Source

from .world import DEAD, LATER, NAMES, Model, World, last_number, put

#: how many steps of workers a job may need to end when nobody else acts
PATIENCE = 400
#: how many steps a job is refused before its deadline comes
REFUSED_STEPS = 15


class Broken(AssertionError):
    """A sentence does not hold."""

    def __init__(self, sentence: str, steps: tuple[str, ...]) -> None:
        super().__init__(f"{sentence}\n  " + "\n  ".join(steps))
        self.sentence = sentence
        self.steps = steps


@dataclass(frozen=True)
class Seen:
    """A step, and the state to which it led."""

    model: Model
    before: Job
    what: str
    world: World
    job: Job
    #: states from which the job is known to end
    ends: set[World]


@dataclass
class Checker:
    """Visits the states breadth first."""

    model: Model
    #: the sentences to check; all by default
    sentences: Collection[str] = field(default_factory=lambda: tuple(SENTENCES))
    visited: dict[World, tuple[World, str] | None] = field(default_factory=dict)
    _ends: set[World] = field(default_factory=set)

    def explore(self, depth: int) -> int:
        """Visit all states up to so many steps from the start, and return their number. Raises Broken."""
        start = self.model.start()
        self.visited[start] = None
        frontier = [start]
        for _ in range(depth):
            frontier = [after for world in frontier for after in self._next(world)]
            if not frontier:
                break
        return len(self.visited)

    def _next(self, world: World) -> Iterator[World]:
        for what, after in self.model.steps(world):
            if after == world or (after := self._canonical(after)) in self.visited:
                continue
            self.visited[after] = world, what
            self._check(world, after, what)
            yield after

    def _canonical(self, world: World) -> World:
        """Two workers that swapped their roles make the same state."""
        first, second = world.workers
        if first <= second or first.known >= 0 or second.known >= 0:
            return world
        swap = {NAMES[0]: NAMES[1], NAMES[1]: NAMES[0]}

        def swapped(job: Job) -> Job:
            return replace(job, holder=swap.get(job.holder or "", job.holder))

        job = self.model.jobs.changed(world.job, "swapped", swapped)
        assert isinstance(job, int)
        return world._replace(job=job, workers=(second, first))

    def _check(self, world: World, after: World, what: str) -> None:
        jobs = self.model.jobs
        seen = Seen(self.model, jobs[world.job], what, after, jobs[after.job], self._ends)
        for sentence in self.sentences:
            if not SENTENCES[sentence](seen):
                raise Broken(sentence, self.path(after))

    def path(self, world: World) -> tuple[str, ...]:
        """The steps that led to a state."""
        steps: list[str] = []
        at: World | None = world
        while at is not None and (how := self.visited[at]) is not None:
            at, what = how
            steps.append(f"{what:50} {_seen(self.model, world)}")
            world = at
        return tuple(reversed(steps))


def _abandoned(model: Model, world: World) -> World:
    """The same state with every worker dead, an empty network and no more faults."""
    after = model.jobs.changed(
        world.job, "abandoned", lambda job: replace(job, holder=DEAD) if job.holder in NAMES else job
    )
    assert isinstance(after, int)
    return World(after, provider=world.provider, stored=world.stored)


def _duties(model: Model, world: World) -> Iterator[World]:
    """What we do for a job by ourselves, one step after the other."""
    job = model.jobs[world.job]
    steps = {what: after for what, after in model.worker_steps(world, 0) if after != world}
    # A silent provider: a request is sent and never answered.
    if world.workers[0].at in ("calling", "waiting"):
        yield world._replace(workers=(world.workers[0]._replace(at="broken"), world.workers[1]))
    for wanted in ("stores all", "reports an unknown outcome", "sends", "does not send", "claims"):
        if wanted in steps:
            yield steps[wanted]
    yield from (after for _, after in model.sweep_steps(world) if after != world)
    if job.wake_at == LATER or any(image.retry_at == LATER for image in job.pending):
        yield model.later(world)
    yield from (after for what, after in model.time_steps(world) if what == "the deadline comes")


def _over(job: Job) -> bool:
    return job.status.is_final and not job.pending


def _seen(model: Model, world: World) -> str:
    job = model.jobs[world.job]
    attempts = " ".join(f"{a.number}:{a.outcome}/{a.charged}x{a.times}" for a in job.attempts)
    why = f" ({job.error.code})" if job.error else ""
    return f"{job.status}{why} holder={job.holder} [{attempts}] charged={[charges for charges, _ in world.provider]}"


# --- the sentences ----------------------------------------------------------------------------------------------------


def sent_once(seen: Seen) -> bool:
    return seen.model.provider.keyed or all(count <= 1 for count in seen.world.sent)


def on_the_ledger_first(seen: Seen) -> bool:
    return len(seen.world.sent) <= last_number(seen.job)


def charged_once(seen: Seen) -> bool:
    allowed = seen.world.word or seen.model.setting.on_unknown == "charge_again"
    return allowed or sum(charges for charges, _ in seen.world.provider) <= 1


def has_doubts_on_the_ledger(seen: Seen) -> bool:
    """What was charged is never `no` on the ledger, and only the current attempt of a submitting job is being sent."""
    for number, (charges, _) in enumerate(seen.world.provider, start=1):
        attempt = find_attempt(seen.job.attempts, number)
        is_free = attempt is not None and attempt.charged is Charged.NO
        if charges and is_free and number not in seen.world.lied:
            return False
    on_their_way = [attempt for attempt in seen.job.attempts if attempt.outcome is Outcome.SENDING]
    return not on_their_way or (seen.job.status is Status.SUBMITTING and on_their_way == [seen.job.attempts[-1]])


def only_what_was_done_succeeded(seen: Seen) -> bool:
    done = {number for number, (_, state) in enumerate(seen.world.provider, start=1) if state == "done"}
    succeeded = (Outcome.SUCCEEDED, Outcome.SURPLUS)
    return all(attempt.number in done for attempt in seen.job.attempts if attempt.outcome in succeeded)


def forged_reports_change_nothing(seen: Seen) -> bool:
    changed = seen.model.jobs.changed
    for number in (0, last_number(seen.job) + 1):
        for heard in ("Succeeded", "Failed", "Running"):
            told = changed(
                seen.world.job,
                ("reported", number, heard, Source.CALLBACK, False),
                lambda job, number=number, heard=heard: seen.model.reported(
                    job, number, heard, Source.CALLBACK, inline=False
                ),  # type: ignore[misc]
            )
            if told != seen.world.job:
                return False
    return True


def no_report_is_lost(seen: Seen) -> bool:
    kept = (Outcome.SUCCEEDED, Outcome.SURPLUS)
    told = (find_attempt(seen.job.attempts, number) for number in seen.world.told)
    return all(attempt is None or attempt.outcome in kept for attempt in told)


def has_each_image_once(seen: Seen) -> bool:
    """Stored once, still to be stored, or missing with a reason; all of one attempt."""
    stored = [item.index for item in seen.job.artifacts]
    places = stored + [item.index for item in seen.job.pending] + [item.index for item in seen.job.missing]
    if len(set(places)) != len(places) or any(not item.code for item in seen.job.missing):
        return False
    if len({item.attempt for item in seen.job.artifacts} | {item.attempt for item in seen.job.pending}) > 1:
        return False
    if seen.job.status in (Status.STORING, Status.SUCCEEDED):
        return sorted(places) == list(range(seen.model.setting.images))
    return True


def each_reported_image_is_stored_or_says_why(seen: Seen) -> bool:
    """A reported image is only left if the job was canceled, another attempt's are stored, or a person decided so."""
    if not seen.world.told or seen.world.word or seen.job.status is Status.CANCELED:
        return True
    if seen.job.status in (Status.STORING, Status.SUCCEEDED):
        return True
    return seen.job.status is Status.FAILED and bool(seen.job.missing)


def a_final_record_says_why(seen: Seen) -> bool:
    if (seen.job.status is Status.FAILED) != (seen.job.error is not None):
        return False
    if seen.job.status.is_final != (seen.job.finished_at is not None):
        return False
    return seen.job.status is not Status.SUCCEEDED or bool(seen.job.artifacts)


def has_a_holder_or_is_due(seen: Seen) -> bool:
    """A job with something left to do has a holder, or is in a lane or in the due set."""
    if _over(seen.job):
        return seen.job.holder is None and schedule.due_at(seen.job) is None
    return seen.job.holder is not None or schedule.due_at(seen.job) is not None


def finals_are_sticky(seen: Seen) -> bool:
    before, after = seen.before, seen.job
    if not before.status.is_final:
        return True
    if after.status is before.status:
        return before.status is not Status.SUCCEEDED or before.artifacts == after.artifacts
    if "person retries" in seen.what:
        return before.status is not Status.SUCCEEDED
    late = before.status is Status.FAILED and after.status in (Status.STORING, Status.SUCCEEDED)
    return late and "Succeeded" in seen.what


def rescue_finds_stored_images(seen: Seen) -> bool:
    """Images that came inside an answer are in the storage before they are on the record."""
    sent = seen.before.status is Status.SUBMITTING and last_number(seen.before) in seen.world.stored
    return seen.what != "sweep rescues" or not sent or seen.job.status in (Status.STORING, Status.SUCCEEDED)


def it_ends_alone(seen: Seen) -> bool:
    """Whether the job still ends when every worker dies, a new one does its duty, and the provider never answers."""
    model, ends = seen.model, seen.ends
    met: list[World] = []
    world = _abandoned(model, seen.world)
    for _ in range(PATIENCE):
        if world in ends or _over(model.jobs[world.job]):
            ends.update(met)
            return True
        met.append(world)
        step = next((after for after in _duties(model, world) if after not in met), None)
        if step is None:
            return False
        world = step
    return False


def a_refusal_for_now_is_no_failure(seen: Seen) -> bool:
    """In this world only a refusal for now has this code."""
    return seen.job.error is None or seen.job.error.code is not Code.RATE_LIMITED


def it_ends_although_it_is_always_refused(seen: Seen) -> bool:
    """Whether a job that its provider refuses for now, each time, still ends at its deadline."""
    if seen.job.attempt is None or not seen.job.attempt.is_refused or _over(seen.job):
        return True
    model, world = seen.model, _abandoned(seen.model, seen.world)
    for turn in range(2 * REFUSED_STEPS):
        if _over(model.jobs[world.job]):
            return True
        steps = dict(model.time_steps(world))
        if turn == REFUSED_STEPS and "the deadline comes" in steps:
            world = steps["the deadline comes"]
        me = world.workers[0]
        if me.at == "calling":
            world = put(world, 0, me._replace(at="answered", heard="Busy"))
        elif me.at == "answered":
            world = next(model.report(world, 0))[1]
        else:
            world = next((after for after in _duties(model, world) if after != world), world)
    return False


SENTENCES: Mapping[str, Callable[[Seen], bool]] = {
    "an attempt is sent at most once, except with the provider's idempotency key": sent_once,
    "an attempt is on the ledger before it is sent": on_the_ledger_first,
    "a job is charged at most once unless its policy allowed more": charged_once,
    "every doubt is on the ledger": has_doubts_on_the_ledger,
    "only what the provider rendered is a success": only_what_was_done_succeeded,
    "a report on an attempt that does not exist changes nothing": forged_reports_change_nothing,
    "an accepted report is never lost": no_report_is_lost,
    "each image is stored once, or missing says which is not and why": has_each_image_once,
    "each reported image is stored, or the job says why not": each_reported_image_is_stored_or_says_why,
    "a final record says why": a_final_record_says_why,
    "a job that is not complete has a holder or is due": has_a_holder_or_is_due,
    "a final status stays, except for a late result and a person's retry": finals_are_sticky,
    "a rescue finds the images in the storage": rescue_finds_stored_images,
    "an accepted job ends in a final status": it_ends_alone,
    "a job does not fail because its provider refuses it for now": a_refusal_for_now_is_no_failure,
    "a job that is always refused ends at its deadline": it_ends_although_it_is_always_refused,
}
