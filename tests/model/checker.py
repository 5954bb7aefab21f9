"""Explores every state of a world to a depth, and says which sentence of the design does not hold, with the steps that led there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from jobs import schedule
from jobs.attempt import Outcome, find_attempt
from jobs.job import Job, Status
from jobs.report import Charged, Code, Source

from .world import DEAD, LATER, NAMES, Model, World, last_number, put

#: a job must be final after so many steps of ours when nobody else does anything any more
PATIENCE = 400
#: and at its deadline after so many steps in which its provider refuses it
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
    #: those that are looked at; all, unless a test is about one
    sentences: Collection[str] = field(default_factory=lambda: tuple(SENTENCES))
    visited: dict[World, tuple[World, str] | None] = field(default_factory=dict)
    _ends: set[World] = field(default_factory=set)

    def explore(self, depth: int) -> int:
        """All states that are at most so many steps from the start; how many there are. Raises Broken."""
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
        """Two workers that changed their roles make the same state."""
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
    """The same with every worker dead, an empty wire and nothing more that goes wrong."""
    after = model.jobs.changed(
        world.job, "abandoned", lambda job: replace(job, holder=DEAD) if job.holder in NAMES else job
    )
    assert isinstance(after, int)
    return World(after, vendor=world.vendor, stored=world.stored)


def _duties(model: Model, world: World) -> Iterator[World]:
    """What the house itself does for a job, one step after the other."""
    job = model.jobs[world.job]
    steps = {what: after for what, after in model.worker_steps(world, 0) if after != world}
    # A silent vendor: a request goes out and its end is not seen.
    if world.workers[0].at in ("calling", "waiting"):
        yield world._replace(workers=(world.workers[0]._replace(at="broken"), world.workers[1]))
    for wanted in ("stores all", "tells that it saw no end", "sends", "does not send", "claims"):
        if wanted in steps:
            yield steps[wanted]
    yield from (after for _, after in model.sweep_steps(world) if after != world)
    if job.wake_at == LATER or any(image.retry_at == LATER for image in job.pending):
        yield model.later(world)
    yield from (after for what, after in model.time_steps(world) if what == "the deadline comes")


def _over(job: Job) -> bool:
    return job.status.final and not job.pending


def _seen(model: Model, world: World) -> str:
    job = model.jobs[world.job]
    attempts = " ".join(f"{a.number}:{a.outcome}/{a.charged}x{a.times}" for a in job.attempts)
    why = f" ({job.error.code})" if job.error else ""
    return f"{job.status}{why} holder={job.holder} [{attempts}] charged={[charges for charges, _ in world.vendor]}"


# --- the sentences ----------------------------------------------------------------------------------------------------


def sent_once(seen: Seen) -> bool:
    return seen.model.vendor.keyed or all(count <= 1 for count in seen.world.sent)


def on_the_ledger_first(seen: Seen) -> bool:
    return len(seen.world.sent) <= last_number(seen.job)


def charged_once(seen: Seen) -> bool:
    allowed = seen.world.word or seen.model.setting.on_unknown == "charge_again"
    return allowed or sum(charges for charges, _ in seen.world.vendor) <= 1


def doubts_are_on_the_ledger(seen: Seen) -> bool:
    """What the vendor charged is never `no` on the ledger, and what nobody saw the end of is not taken for sure."""
    for number, (charges, _) in enumerate(seen.world.vendor, start=1):
        attempt = find_attempt(seen.job.attempts, number)
        is_free = attempt is not None and attempt.charged is Charged.NO
        if charges and is_free and number not in seen.world.lied:
            return False
    on_their_way = [attempt for attempt in seen.job.attempts if attempt.outcome is Outcome.SENDING]
    return not on_their_way or (seen.job.status is Status.SUBMITTING and on_their_way == [seen.job.attempts[-1]])


def only_what_was_done_succeeded(seen: Seen) -> bool:
    done = {number for number, (_, state) in enumerate(seen.world.vendor, start=1) if state == "done"}
    succeeded = (Outcome.SUCCEEDED, Outcome.SURPLUS)
    return all(attempt.number in done for attempt in seen.job.attempts if attempt.outcome in succeeded)


def forged_news_does_nothing(seen: Seen) -> bool:
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


def nothing_told_is_lost(seen: Seen) -> bool:
    kept = (Outcome.SUCCEEDED, Outcome.SURPLUS)
    told = (find_attempt(seen.job.attempts, number) for number in seen.world.told)
    return all(attempt is None or attempt.outcome in kept for attempt in told)


def each_image_has_one_place(seen: Seen) -> bool:
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


def what_was_told_is_kept_or_says_why(seen: Seen) -> bool:
    """A picture that was reported is only left where the job was canceled, another attempt's are kept, or a person said so."""
    if not seen.world.told or seen.world.word or seen.job.status is Status.CANCELED:
        return True
    if seen.job.status in (Status.STORING, Status.SUCCEEDED):
        return True
    return seen.job.status is Status.FAILED and bool(seen.job.missing)


def a_final_record_says_why(seen: Seen) -> bool:
    if (seen.job.status is Status.FAILED) != (seen.job.error is not None):
        return False
    if seen.job.status.final != (seen.job.finished_at is not None):
        return False
    return seen.job.status is not Status.SUCCEEDED or bool(seen.job.artifacts)


def somebody_will_look_at_it(seen: Seen) -> bool:
    """Whatever is not over is in somebody's hands, in a line or in the due set."""
    if _over(seen.job):
        return seen.job.holder is None and schedule.due_at(seen.job) is None
    return seen.job.holder is not None or schedule.due_at(seen.job) is not None


def finals_are_sticky(seen: Seen) -> bool:
    before, after = seen.before, seen.job
    if not before.status.final:
        return True
    if after.status is before.status:
        return before.status is not Status.SUCCEEDED or before.artifacts == after.artifacts
    if "person retries" in seen.what:
        return before.status is not Status.SUCCEEDED
    late = before.status is Status.FAILED and after.status in (Status.STORING, Status.SUCCEEDED)
    return late and "Succeeded" in seen.what


def the_rescue_finds_what_is_stored(seen: Seen) -> bool:
    """Images that came inside an answer are in the storage before the record knows of them."""
    sent = seen.before.status is Status.SUBMITTING and last_number(seen.before) in seen.world.stored
    return seen.what != "sweep rescues" or not sent or seen.job.status in (Status.STORING, Status.SUCCEEDED)


def it_ends_alone(seen: Seen) -> bool:
    """Whether the job still ends when the vendor falls silent: every worker dies, and one that is new does its duty."""
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
    """In this world only a refusal that says nothing about the request has this code."""
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
            world = next(model.learn(world, 0))[1]
        else:
            world = next((after for after in _duties(model, world) if after != world), world)
    return False


SENTENCES: Mapping[str, Callable[[Seen], bool]] = {
    "an attempt is sent at most once, except under the provider's own key": sent_once,
    "an attempt is on the ledger before its bytes go out": on_the_ledger_first,
    "a job is charged at most once unless its policy allowed more": charged_once,
    "every doubt is on the ledger": doubts_are_on_the_ledger,
    "only what the vendor made counts as a success": only_what_was_done_succeeded,
    "news of an attempt that never was changes nothing": forged_news_does_nothing,
    "news that was taken is never lost": nothing_told_is_lost,
    "each image is stored once, or missing says which is not and why": each_image_has_one_place,
    "each image that was reported is kept, or the job says why not": what_was_told_is_kept_or_says_why,
    "a final record says why": a_final_record_says_why,
    "somebody will look at a job that is not over": somebody_will_look_at_it,
    "a final status stays, but for a late result and a person's word": finals_are_sticky,
    "a rescue finds what lies in the storage": the_rescue_finds_what_is_stored,
    "an accepted job ends in a final status": it_ends_alone,
    "a job does not fail because its provider refuses it for now": a_refusal_for_now_is_no_failure,
    "a job that is always refused ends at its deadline": it_ends_although_it_is_always_refused,
}
