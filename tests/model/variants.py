"""The transitions and the store with one thought left out: each of these must be caught, or the checker proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jobs.job import Artifact, Attempt, Job, Kept, OnUnknown, Status
from jobs.report import Report, Succeeded

from .settings import CALLING_BACK, INLINE, KEYED, LOOKED_UP, SYNCHRONOUS
from .world import NAMES, NOW, Model, Setting, Step, World, put

# --- broken transitions -----------------------------------------------------------------------------------------------


class AttemptNotChecked(Job):
    """Takes whatever is said of any attempt for news of the current one."""

    def reported(self, number: int, report: Report, now: datetime, **options: Any) -> Job:
        return super().reported(len(self.attempts), report, now, **options)


class ResubmitsOnUnknown(Job):
    """Sends again what nobody saw the end of, whatever the policy."""

    def _unknown_for_good(self, attempt: Attempt, now: datetime) -> Job:
        return replace(self, on_unknown=OnUnknown.CHARGE_AGAIN)._unknown_for_good_again(attempt, now)

    def _unknown_for_good_again(self, attempt: Attempt, now: datetime) -> Job:
        return super()._unknown_for_good(attempt, now)


class FinalsNotSticky(Job):
    """Cancels what is over."""

    def canceled(self, now: datetime) -> Job:
        return self._moved(Status.CANCELED, now, "canceled", finished_at=now)


class StoresAfterCancel(Job):
    """Takes a late success of a canceled job for one that is wanted."""

    def _succeeded(self, number: int, report: Succeeded, now: datetime, inline: Mapping[int, Any]) -> Job:
        alive = replace(self, status=Status.RUNNING, finished_at=None) if self.status is Status.CANCELED else self
        return Job._succeeded(alive, number, report, now, inline)


class NewKeyForTheSameAttempt(Job):
    """Sends an attempt whose end nobody saw again, but under another key."""

    @property
    def resends(self) -> bool:
        return False


class RefusedResendBelieved(Job):
    """Takes the refusal of a resend for the end of the first send."""

    def sending(self, holder: str, now: datetime, **options: Any) -> Job:
        job = super().sending(holder, now, **options)
        return replace(job, attempts=tuple(replace(attempt, sends=1) for attempt in job.attempts))


class RunsAndIsSentAgain(Job):
    """Does not give up a planned resend when the attempt turns out to run."""

    def _awaits(self, number: int) -> bool:
        return self.status is not Status.QUEUED and super()._awaits(number)


class EarlyCallbackDropped(Job):
    """Has no place for a callback that comes before the answer to the submit."""

    def _succeeded(self, number: int, report: Succeeded, now: datetime, inline: Mapping[int, Any]) -> Job:
        return self if self.status is Status.SUBMITTING else super()._succeeded(number, report, now, inline)


class LateResultDropped(Job):
    """Does not store what comes after it gave up."""

    def _salvageable(self, attempt: Attempt) -> bool:
        return False


class StoringNotRescued(Job):
    """Leaves a dead worker's images where they are."""

    def released(self, holder: str, now: datetime) -> Job:
        return self if self.pending else super().released(holder, now)


class DeadSenderNotRescued(Job):
    """Ends the waiting of an attempt that has a holder only by that holder's word."""

    def unseen(self, holder: str, now: datetime, *, number: int | None = None) -> Job:
        return (
            self if number is None and self.status is Status.SUBMITTING else super().unseen(holder, now, number=number)
        )

    def expired(self, now: datetime) -> Job:
        return self if self.status is Status.SUBMITTING else super().expired(now)


class KeptTwice(Job):
    """Adds an image whether it still waits for one or not."""

    def kept(self, number: int, ended: Mapping[int, Kept], now: datetime) -> Job:
        job = super().kept(number, ended, now)
        again = tuple(end for end in ended.values() if isinstance(end, Artifact))
        return replace(job, artifacts=(*self.artifacts, *again))


class DoubtForgotten(Job):
    """Leaves an attempt on its way when it is canceled."""

    def canceled(self, now: datetime) -> Job:
        job = super().canceled(now)
        return job if job is self else replace(job, attempts=self.attempts)


# --- broken workers and stores ----------------------------------------------------------------------------------------


@dataclass
class ClaimedTwice(Model):
    """A store without compare-and-set: whoever read the job writes it."""

    def claim(self, world: World, slot: int) -> Iterator[Step]:
        me, name = world.workers[slot], NAMES[slot]
        seen = me.known if me.known >= 0 else world.job
        after = self.jobs.changed(seen, ("claimed", name), lambda job: job.claimed(name, NOW))
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
    """Sends first and writes it down when the answer is there."""

    def send(self, world: World, slot: int) -> Iterator[Step]:
        yield "sends", self.sent(world, slot, world.workers[slot].number)


@dataclass
class RescueForgetsWhatIsStored(Model):
    """Declares a dead worker's attempt unknown although its images lie in the storage, and throws them away."""

    def rescued(self, world: World, holder: str) -> World:
        after = self.update(world, world.job, ("rescued", holder), lambda job: job.unseen(holder, NOW))
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


def transitions(kind: type[Job], setting: Setting, breaks: str) -> Variant:
    return Variant(kind.__name__, Model(setting, kind), breaks)


def world(kind: type[Model], setting: Setting, breaks: str) -> Variant:
    return Variant(kind.__name__, kind(setting), breaks)


def variants() -> tuple[Variant, ...]:
    """All of them, ready to be explored."""
    final = "a final status stays, but for a late result and a person's word"
    told = "news that was taken is never lost"
    return (
        transitions(AttemptNotChecked, Setting(CALLING_BACK), "news of an attempt that never was changes nothing"),
        world(
            ClaimedTwice, Setting(SYNCHRONOUS), "an attempt is sent at most once, except under the provider's own key"
        ),
        world(SentBeforeTheLedger, Setting(SYNCHRONOUS), "an attempt is on the ledger before its bytes go out"),
        transitions(ResubmitsOnUnknown, Setting(SYNCHRONOUS), ONCE),
        transitions(FinalsNotSticky, Setting(SYNCHRONOUS), final),
        transitions(StoresAfterCancel, Setting(CALLING_BACK), final),
        transitions(NewKeyForTheSameAttempt, Setting(KEYED), ONCE),
        transitions(RefusedResendBelieved, Setting(KEYED), DOUBT),
        transitions(RunsAndIsSentAgain, Setting(KEYED), ONCE),
        transitions(EarlyCallbackDropped, Setting(CALLING_BACK), told),
        transitions(
            LateResultDropped, Setting(SYNCHRONOUS), "each image that was reported is kept, or the job says why not"
        ),
        transitions(StoringNotRescued, Setting(LOOKED_UP), ENDS),
        transitions(DeadSenderNotRescued, Setting(SYNCHRONOUS), ENDS),
        transitions(KeptTwice, Setting(SYNCHRONOUS), "each image is stored once, or missing says which is not and why"),
        transitions(DoubtForgotten, Setting(SYNCHRONOUS), DOUBT),
        world(RescueForgetsWhatIsStored, Setting(INLINE), "a rescue finds what lies in the storage"),
    )
