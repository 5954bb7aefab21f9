"""Runs one job and decides what happens next. `Runner.run` is the whole way of a job; `Runner.attend` is where the sweep enters.

Until the attempt is on the ledger nothing is paid, and everything may be repeated. From then on an answer that does not come leaves
an unknown outcome, and the attempt's own abilities say what follows.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from jobs import logs, schedule, transitions
from jobs.attempt import Outcome, find_attempt
from jobs.darkroom import Darkroom
from jobs.errors import JobNotFound, StorageError
from jobs.images import Artifact, InlineResult, InSpool, StoreResult
from jobs.job import Job, Status
from jobs.report import Image, Report, Source, Succeeded
from jobs.state.repository import Change, Transition

from .calls import ProviderCalls, Submission
from .image_store import ImageStore
from .inputs import InputError
from .updates import Updates

log = logging.getLogger(__name__)

_Found = Mapping[int, InlineResult]


@dataclass(frozen=True)
class Runner:
    """Runs jobs for one process, on its event loop."""

    darkroom: Darkroom
    holder: str
    calls: ProviderCalls
    images: ImageStore
    updates: Updates
    #: runs a blocking call in the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]
    #: called with the name of each step, so that a test can end the process there
    checkpoint: Callable[[str], None] = lambda _: None
    #: whether this process has renewed its lease in time
    lease_held: Callable[[], bool] = lambda: True

    async def run(self, job_id: str) -> None:
        """Do the next step of a job: submit it to its provider, and store the images that it has.

        Returns at once when another worker holds the job, or when nothing is to be done.
        """
        job = await self._claim(job_id)
        if job is None:
            return
        if not job.pending:
            submission = await self._prepare(job)
            if submission is None:
                return
            job = await self._admit(job, submission)
            if job is None:
                return
            number = submission.number
            # The answer's memory is freed before images are fetched: two jobs that hold some and wait for more would wait forever.
            async with self.images.budget.reservation() as reserve:
                report = await self.calls.submit(job, submission, reserve)
                inline = await self.images.store_inline(job, number, report)
                job = await self._report(job, number, report, inline)
        if job is not None:
            results = await self.images.store_pending(job)
            await self._finish(job, results)

    # --- the steps of `run` ---------------------------------------------------------------------------------------

    async def _claim(self, job_id: str) -> Job | None:
        """Take the job under this process's lease; None when it cannot be claimed, or needs nothing more than a poll."""
        try:
            change = await self._update(job_id, lambda job, now: transitions.claimed(job, self.holder, now))
        except JobNotFound:
            return None
        job = change.after
        if change.applied and job.holder == self.holder:
            self.checkpoint("claimed")
            return job
        if schedule.is_poll_due(job, self.images.now()):  # passed on by a worker without the provider's key
            await self._poll(job)
        return None

    async def _prepare(self, job: Job) -> Submission | None:
        """Fetch the inputs and make the call; None when that is not possible, and the job was put back or has failed."""
        try:
            submission = await self.calls.prepare(job)
        except InputError as error:
            message, lasting = str(error), error.lasting
            fields: logs.Fields = {"job": job.id, "attempt": transitions.next_number(job), "operation": job.operation}
            logs.event("input failed", fields, level=logging.WARNING, reason=message)
            await self._update(
                job.id,
                lambda current, now: transitions.input_failed(current, self.holder, message, now, lasting=lasting),
                known=job,
            )
            return None
        self.checkpoint("prepared")
        return submission

    async def _admit(self, job: Job, submission: Submission) -> Job | None:
        """Write the attempt to the ledger; None when the job may not be sent any more."""
        if not self.lease_held():
            # Other workers may consider this one dead, and what it sends lost: one of them takes the job.
            await self._update(job.id, lambda current, now: transitions.released(current, self.holder, now), known=job)
            return None

        def submitting(current: Job, now: datetime) -> Job:
            if transitions.next_number(current) != submission.number:
                return current
            return transitions.submitting(
                current,
                self.holder,
                now,
                recovery=submission.recovery,
                polled=submission.abilities.poll or submission.abilities.lookup,
                inline=submission.abilities.inline_images,
                expected_cost=submission.operation.price(submission.request),
            )

        change = await self._update(job.id, submitting, known=job)
        if not change.applied or change.after.status is not Status.SUBMITTING:
            return None
        self.checkpoint("on the ledger")
        return change.after

    async def _report(
        self, job: Job, number: int, report: Report | None, inline: Mapping[int, InlineResult]
    ) -> Job | None:
        """Write what the provider answered, or that the outcome is unknown; returns the job if its images are ours to store."""
        if report is None:
            await self._update(
                job.id,
                lambda current, now: transitions.outcome_lost(current, self.holder, now, number=number),
                known=job,
            )
            return None
        self.checkpoint("inline images stored")
        answer = _without_content(report)

        def reported(current: Job, now: datetime) -> Job:
            changed = transitions.reported(current, number, answer, now, source=Source.ANSWER, inline=inline)
            return self._held(changed, now)

        change = await self._update(job.id, reported, known=job)
        self.checkpoint("reported")
        return self._to_store(change)

    async def _finish(self, job: Job, results: Mapping[int, StoreResult]) -> None:
        """Write what became of the images, and delete those from the spool that are in the storage now."""
        number = job.pending[0].attempt
        await self._update(job.id, lambda current, now: transitions.stored(current, number, results, now), known=job)
        self.checkpoint("stored")
        for image in job.pending:
            if isinstance(image.source, InSpool) and isinstance(results.get(image.index), Artifact):
                await self.images.delete_spooled(image.source.name)

    # --- what the sweep brings ------------------------------------------------------------------------------------

    async def attend(self, job: Job, living: frozenset[str]) -> None:
        """Act on a due job: its holder died, its deadline is over, it is time for a poll, or images are to be stored."""
        now = self.images.now()
        poll_due = schedule.is_poll_due(job, now)
        url_expired = any(image.external_id and image.expires_at and image.expires_at <= now for image in job.pending)
        if job.holder is not None and job.holder not in living:
            await self._rescue(job, job.holder)
        elif schedule.is_overdue(job, now):
            await self._update(job.id, transitions.expired, known=job)
        elif (poll_due or (url_expired and job.holder is None)) and job.provider not in self.calls.providers:
            # Only a worker that has the provider's key can ask for the result, or for a new URL.
            await self.blocking(lambda: self.darkroom.repository.put_in_lane(job))
        elif poll_due:
            await self._poll(job)
        elif job.pending and job.holder is None:
            await self.run(job.id)

    async def _poll(self, job: Job) -> None:
        attempt = job.attempt
        if attempt is None or job.provider not in self.calls.providers:
            return
        report = await self.calls.poll(job, attempt)
        if report is None:
            await self._update(job.id, transitions.poll_postponed, known=job)
            return
        inline = await self.images.store_inline(job, attempt.number, report)
        self.checkpoint("polled")
        number, found = attempt.number, _without_content(report)

        def polled(current: Job, now: datetime) -> Job:
            reported = transitions.reported(current, number, found, now, source=Source.POLL, inline=inline)
            return self._held(transitions.poll_postponed(reported, now), now)

        ours = self._to_store(await self._update(job.id, polled, known=job))
        if ours is not None:
            await self._finish(ours, await self.images.store_pending(ours))

    async def _rescue(self, job: Job, dead: str) -> None:
        """A worker died while it held the job: images that it stored are looked for first; else the outcome is unknown."""
        log.warning("job %s: released, since its worker %s is gone", job.id, dead)
        attempt = job.attempt
        found: Mapping[int, InlineResult] = {}
        if job.status is Status.SUBMITTING and attempt is not None and attempt.inline:
            try:
                found = await self.images.find_inline(job, attempt.number)
            except StorageError as error:
                log.warning("job %s: the storage cannot be searched for its images: %s", job.id, error)
                if error.retryable and not schedule.is_overdue(job, self.images.now()):
                    # They may be there: the outcome is not unknown before the storage has been asked. The job stays due.
                    return
        self.checkpoint("rescued")

        def rescued(current: Job, now: datetime) -> Job:
            if found and attempt and current.holder == dead and current.status is Status.SUBMITTING:
                return transitions.reported(current, attempt.number, _success(found), now, inline=found)
            return transitions.outcome_lost(current, dead, now)

        await self._advance(job.id, rescued, known=job)

    async def report_spooled(self) -> None:
        """Report the images that an earlier process on this host spooled and could not write into their jobs' records."""
        for job_id, number in await self.images.spooled_attempts():
            try:
                job: Job = await self.blocking(partial(self.darkroom.repository.get, job_id))
            except JobNotFound:
                log.warning(
                    "job %s has no record any more; its spooled images stay in %s", job_id, self.images.spool.folder
                )
                continue
            attempt = find_attempt(job.attempts, number)
            if attempt is None or attempt.holder == self.holder:
                continue
            if attempt.outcome in (Outcome.SUCCEEDED, Outcome.SURPLUS):
                await self.images.delete_stored_from_spool(job, number)
                continue
            found = await self.images.find_inline(job, number)

            def report(current: Job, now: datetime, number: int = number, found: _Found = found) -> Job:
                return transitions.reported(current, number, _success(found), now, inline=found)

            await self._advance(job.id, report, known=job)

    # --- the record -----------------------------------------------------------------------------------------------

    async def _update(self, job_id: str, change: Transition, *, known: Job | None = None) -> Change:
        """Write a change after which this process goes on itself, or the sweep does."""
        done = await self.updates.update(job_id, change, known=known)
        logs.change(done.before, done.after)
        return done

    async def _advance(self, job_id: str, change: Transition, *, known: Job) -> None:
        """Write a change after which any worker may go on."""
        await self.blocking(lambda: self.darkroom.advance(job_id, change, known=known))

    def _held(self, job: Job, now: datetime) -> Job:
        """The job claimed by us in the same write, if it has images to be stored."""
        return transitions.claimed(job, self.holder, now) if job.pending else job

    def _to_store(self, change: Change) -> Job | None:
        """The job, if this change made it ours and it has images to be stored."""
        job = change.after
        return job if change.applied and job.holder == self.holder and job.pending else None


def _without_content(report: Report) -> Report:
    """The report without the bytes of images, which are stored already and must not enter the record."""
    if not isinstance(report, Succeeded):
        return report
    images = tuple(Image(image.index) if image.content is not None else image for image in report.images)
    return Succeeded(images, report.external_id, report.cost)


def _success(found: Mapping[int, InlineResult]) -> Succeeded:
    """The report of an answer of which only the stored images are left."""
    return Succeeded(tuple(Image(index) for index in sorted(found)))
