"""Transitions, workers and stores with one defect each: the checker must catch every one, or it proves nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

from jobs import transitions
from jobs.job import Job

from .settings import CALLING_BACK, INLINE, KEYED, LOOKED_UP, SYNCHRONOUS
from .world import NAMES, NOW, Model, Setting, Step, World, put

# --- broken transitions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """The shipped transitions with some of their text replaced."""

    name: str
    #: each text, which occurs exactly once, and what replaces it
    edits: Mapping[str, str]

    def applied(self) -> ModuleType:
        """The transitions as another module. Raises ValueError when a text no longer occurs exactly once."""
        source = inspect.getsource(transitions)
        for old, new in self.edits.items():
            if source.count(old) != 1:
                raise ValueError(f"{self.name}: {old!r} occurs {source.count(old)} times in jobs/transitions.py")
            source = source.replace(old, new)
        module = ModuleType(transitions.__name__)
        module.__package__ = transitions.__package__
        exec(compile(source, f"{self.name}.py", "exec"), module.__dict__)
        return module


_RETURN = "        return job\n"
ATTEMPT_NOT_CHECKED = Mutation(
    "takes any report for one of the current attempt",
    {"line = find_attempt(job.attempts, number)": "line = job.attempt"},
)
SENDS_UNKNOWN_AGAIN = Mutation(
    "sends an attempt with an unknown outcome again, whatever the policy",
    {"if job.on_unknown is OnUnknown.CHARGE_AGAIN and _has_attempts_left(job):": "if _has_attempts_left(job):"},
)
FINALS_NOT_STICKY = Mutation(
    "cancels a final job", {f"    if job.status not in WAITING:\n{_RETURN}    return _moved": "    return _moved"}
)
STORES_AFTER_CANCEL = Mutation(
    "stores a late result of a canceled job",
    {"if job.status in WAITING or _is": "if job.status in WAITING or job.status is Status.CANCELED or _is"},
)
NEW_KEY_FOR_THE_SAME_ATTEMPT = Mutation(
    "sends an attempt with an unknown outcome again under another key",
    {"return last is not None and last.recovery is Recovery.KEY and (": "return False and ("},
)
REFUSED_RESEND_BELIEVED = Mutation(
    "takes the refusal of a resend for the outcome of the first send",
    {"attempt.repeating(job.attempts[-1])": "attempt"},
)
RUNS_AND_IS_SENT_AGAIN = Mutation(
    "still resends an attempt that turned out to run",
    {"if not (job.status is Status.QUEUED or _is_decisive(job, attempt)):": "if job.status is Status.QUEUED:"},
)
EARLY_CALLBACK_DROPPED = Mutation(
    "drops a callback that comes before the answer to the submit",
    {
        "    paid = attempt.succeeded(report, now)\n": (
            f"    if job.status is Status.SUBMITTING:\n{_RETURN}    paid = attempt.succeeded(report, now)\n"
        )
    },
)
LATE_RESULT_DROPPED = Mutation(
    "drops a result that comes after the job failed",
    {"    return in_doubt or attempt.charged is not Charged.NO\n": "    return False\n"},
)
STORING_NOT_RESCUED = Mutation(
    "never releases the images of a dead worker",
    {"return _advanced(free, now) if job.pending else free": "return job if job.pending else free"},
)
DEAD_SENDER_NOT_RESCUED = Mutation(
    "ends the sending of an attempt only when its holder reports",
    {
        "number not in (None, _last_number(job)):": "number != _last_number(job):",
        "    if not is_overdue(job, now):\n": "    if not is_overdue(job, now) or job.status is Status.SUBMITTING:\n",
    },
)
STORED_TWICE = Mutation(
    "adds an image that is stored already",
    {
        f"    if not tried:\n{_RETURN}": "",
        "tuple(result for _, result in tried if isinstance(result, Artifact))": (
            "tuple(result for result in results.values() if isinstance(result, Artifact))"
        ),
    },
)
DOUBT_FORGOTTEN = Mutation(
    "leaves an attempt that is being sent as it is",
    {"tuple(attempt.left() for attempt in job.attempts)": "job.attempts"},
)
REFUSAL_AFTER_ACCEPTANCE_BELIEVED = Mutation(
    "sends another attempt when a submission is refused that the provider has accepted",
    {"if source is Source.ANSWER and attempt.outcome is Outcome.ACCEPTED:": "if False:"},
)
REFUSED_WITH_A_NEW_KEY = Mutation(
    "retries a refused submission with another key",
    {"same_key = attempt.recovery is Recovery.KEY and": "same_key = False and"},
)
REFUSALS_COUNTED = Mutation(
    "counts a refusal for now as an attempt",
    {"if report.is_not_now and (same_key or attempt.recovery is not Recovery.KEY):": "if False:"},
)
REFUSED_PAST_THE_DEADLINE = Mutation(
    "retries a refused job past its deadline",
    {
        "    if not is_overdue(job, now):\n": (
            "    if not is_overdue(job, now) or (job.attempt is not None and job.attempt.is_refused):\n"
        ),
        "    if is_overdue(job, now):\n        return expired(job, now)\n    ready": "    ready",
        "    if is_overdue(job, now):\n        return expired(job, now)\n    if job.status": "    if job.status",
        "left_seconds = max((job.deadline_at - now).total_seconds(), 0.0)": "left_seconds = 1e9",
    },
)


# --- broken workers and stores ----------------------------------------------------------------------------------------


@dataclass
class ClaimedTwice(Model):
    """A store without compare and set: a writer overwrites what it has not read."""

    def claim(self, world: World, slot: int) -> Iterator[Step]:
        me, name = world.workers[slot], NAMES[slot]
        seen = me.known if me.known >= 0 else world.job
        after = self.jobs.changed(seen, ("claimed", name), lambda job: transitions.claimed(job, name, NOW))
        assert isinstance(after, int)
        if after == seen:
            return
        if me.known < 0:
            yield "looks at the job", put(world, slot, me._replace(known=world.job))
            return
        won = self.claimed(world, slot, after)
        yield "claims what it saw", put(won, slot, won.workers[slot]._replace(known=after))

    def update(self, world: World, known: int, what: object, change: Callable[[Job], Job]) -> int:
        after = self.jobs.changed(known if known >= 0 else world.job, what, change)
        assert isinstance(after, int)
        return after


@dataclass
class SentBeforeTheLedger(Model):
    """Sends first, and writes the ledger after the answer."""

    def send(self, world: World, slot: int) -> Iterator[Step]:
        yield "sends", self.sent(world, slot, world.workers[slot].number)


@dataclass
class RescueForgetsWhatIsStored(Model):
    """Declares the attempt of a dead worker unknown although its images are in the storage."""

    def rescued(self, world: World, holder: str) -> World:
        after = self.update(
            world, world.job, ("rescued", holder), lambda job: transitions.outcome_lost(job, holder, NOW)
        )
        return world._replace(job=after)


@dataclass(frozen=True)
class Variant:
    """A broken variant, the world that shows it, and the sentence that it breaks."""

    name: str
    model: Model
    breaks: str


ONCE = "a job is charged at most once unless its policy allowed more"
DOUBT = "every doubt is on the ledger"
ENDS = "an accepted job ends in a final status"


def mutant(mutation: Mutation, setting: Setting, breaks: str) -> Variant:
    return Variant(mutation.name, Model(setting, mutation.applied()), breaks)


def world(kind: type[Model], setting: Setting, breaks: str) -> Variant:
    return Variant(kind.__name__, kind(setting), breaks)


def variants() -> tuple[Variant, ...]:
    """All of them, ready to be explored."""
    final = "a final status stays, except for a late result and a person's retry"
    told = "an accepted report is never lost"
    sent_once = "an attempt is sent at most once, except with the provider's idempotency key"
    kept = "each reported image is stored, or the job says why not"
    return (
        mutant(
            ATTEMPT_NOT_CHECKED, Setting(CALLING_BACK), "a report on an attempt that does not exist changes nothing"
        ),
        world(ClaimedTwice, Setting(SYNCHRONOUS), sent_once),
        world(SentBeforeTheLedger, Setting(SYNCHRONOUS), "an attempt is on the ledger before it is sent"),
        mutant(SENDS_UNKNOWN_AGAIN, Setting(SYNCHRONOUS), ONCE),
        mutant(FINALS_NOT_STICKY, Setting(SYNCHRONOUS), final),
        mutant(STORES_AFTER_CANCEL, Setting(CALLING_BACK), final),
        mutant(NEW_KEY_FOR_THE_SAME_ATTEMPT, Setting(KEYED), ONCE),
        mutant(REFUSED_RESEND_BELIEVED, Setting(KEYED), DOUBT),
        mutant(RUNS_AND_IS_SENT_AGAIN, Setting(KEYED), ONCE),
        mutant(EARLY_CALLBACK_DROPPED, Setting(CALLING_BACK), told),
        mutant(LATE_RESULT_DROPPED, Setting(SYNCHRONOUS), kept),
        mutant(STORING_NOT_RESCUED, Setting(LOOKED_UP), ENDS),
        mutant(DEAD_SENDER_NOT_RESCUED, Setting(SYNCHRONOUS), ENDS),
        mutant(STORED_TWICE, Setting(SYNCHRONOUS), "each image is stored once, or missing says which is not and why"),
        mutant(DOUBT_FORGOTTEN, Setting(SYNCHRONOUS), DOUBT),
        mutant(REFUSAL_AFTER_ACCEPTANCE_BELIEVED, Setting(CALLING_BACK, lies=1, people=0), ONCE),
        mutant(REFUSED_WITH_A_NEW_KEY, Setting(KEYED, lies=1, people=0), ONCE),
        mutant(
            REFUSALS_COUNTED,
            Setting(SYNCHRONOUS, attempts=1),
            "a job does not fail because its provider refuses it for now",
        ),
        mutant(REFUSED_PAST_THE_DEADLINE, Setting(SYNCHRONOUS), "a job that is always refused ends at its deadline"),
        world(RescueForgetsWhatIsStored, Setting(INLINE), "a rescue finds the images in the storage"),
    )
