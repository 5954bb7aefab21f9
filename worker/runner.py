"""Runs one job and decides what happens next: a pipeline of named steps.

    run ─ claim ─ prepare ─ send ─ call ─ learn ─ store
    attend ─ rescue | poll | expire | run          (what the sweep brings)

Until `send` has written the attempt on the ledger nothing was paid, and everything may be repeated. From then on an end that
nobody saw is `unseen`, and the attempt's own abilities say what follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs import callback_url, providers, schedule, transitions
from jobs.attempt import Outcome, Recovery, find_attempt
from jobs.darkroom import Darkroom, reporting
from jobs.errors import JobNotFound, StorageError
from jobs.images import Artifact, Inline, Kept
from jobs.job import Job, Status
from jobs.providers._contract import Abilities, Call, Context, InputImage, Operation, Response
from jobs.report import Charged, Code, Failed, Image, Report, Source, Succeeded
from jobs.request import Request
from jobs.settings import ProviderSettings
from jobs.state.repository import Change, Transition

from .image_store import ImageStore
from .inputs import InputError, Inputs
from .transport import NotSent, Transport, TransportError
from .updates import Updates

log = logging.getLogger(__name__)

#: the largest answer of a vendor: eight images as base64
MAX_ANSWER_BYTES = 256 << 20
#: a vendor that lets polls hang must not keep the due jobs of others waiting
POLL_TIMEOUT_SECONDS = 10.0
_MAX_POLL_BYTES = 8 << 20


@dataclass(frozen=True)
class Prepared:
    """All that is needed to send one attempt."""

    call: Call
    url: str
    request: Request
    operation: Operation
    abilities: Abilities


@dataclass(frozen=True)
class Runner:
    """Runs jobs for one process, on its event loop."""

    darkroom: Darkroom
    holder: str
    images: ImageStore
    transport: Transport
    updates: Updates
    #: runs a blocking call on the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]
    #: called with the name of each step, so that a test can end the process there
    checkpoint: Callable[[str], None] = lambda _: None
    #: whether this process renewed its lease in time
    lease_held: Callable[[], bool] = lambda: True

    # --- a job that is ready --------------------------------------------------------------------------------------

    async def run(self, job_id: str) -> None:
        """Whatever the job needs next; nothing, when somebody else has it or it needs nothing."""
        try:
            change = await self._update(job_id, lambda job, now: transitions.claimed(job, self.holder, now))
        except JobNotFound:
            return
        job = change.after
        if change.applied and job.holder == self.holder:
            await self._claimed(job)
        elif schedule.is_poll_due(job, self.images.now()):  # handed on by a worker that does not serve its provider
            await self._poll(job)

    async def _claimed(self, job: Job) -> None:
        self.checkpoint("claimed")
        if job.pending:
            await self._store(job)
        else:
            await self._submit(job)

    async def _submit(self, job: Job) -> None:
        prepared = await self._prepared(job)
        if prepared is None:
            return
        self.checkpoint("prepared")
        if not self.lease_held():
            # Others may take us for dead by now, and what we sent for lost: they shall have the job instead.
            await self._update(job.id, lambda current, now: transitions.released(current, self.holder, now), known=job)
            return
        number = transitions.next_number(job)
        change = await self._update(job.id, self._sending(job, prepared), known=job)
        if not change.applied or change.after.status is not Status.SUBMITTING:
            return
        self.checkpoint("on the ledger")
        await self._call(change.after, number, prepared)

    def _sending(self, job: Job, prepared: Prepared) -> Transition:
        recovery = _recovery(prepared.abilities)
        cost = prepared.operation.price(prepared.request)

        def change(current: Job, now: datetime) -> Job:
            if transitions.next_number(current) != transitions.next_number(job):
                return current
            return transitions.submitting(
                current,
                self.holder,
                now,
                recovery=recovery,
                polled=prepared.abilities.poll or prepared.abilities.lookup,
                inline=prepared.abilities.inline_images,
                expected_cost=cost,
            )

        return change

    async def _call(self, job: Job, number: int, prepared: Prepared) -> None:
        """Sends the attempt, learns from its answer, and goes on to store.

        The room of the answer is given back before that: two that hold some and wait for more would wait for ever.
        """
        async with self.images.budget.reservation() as reserve:
            change = await self._exchanged(job, number, prepared, reserve)
        await self._store_if_ours(change)

    async def _exchanged(
        self, job: Job, number: int, prepared: Prepared, reserve: Callable[[int], Awaitable[None]]
    ) -> Change:
        try:
            response = await self._sent(prepared, reserve)
        except NotSent as error:
            return await self._learn(job, number, _not_sent(error))
        except TransportError as error:
            log.warning("job %s attempt %s: %s", job.id, number, error)
            return await self._update(
                job.id,
                lambda current, now: transitions.outcome_lost(current, self.holder, now, number=number),
                known=job,
            )
        self.checkpoint("answered")
        return await self._learn(job, number, prepared.operation.read_answer(prepared.request, response))

    async def _sent(self, prepared: Prepared, reserve: Callable[[int], Awaitable[None]]) -> Response:
        call = prepared.call
        return await self.transport.send(
            call.method,
            prepared.url,
            headers=call.headers,
            json=call.json,
            form=call.form,
            files=call.files,
            timeout_seconds=call.timeout_seconds,
            max_bytes=MAX_ANSWER_BYTES,
            reserve=reserve,
        )

    async def _learn(self, job: Job, number: int, report: Report) -> Change:
        """Keeps what came inside the answer, and writes what the provider said."""
        inline = await self.images.keep_inline(job, number, report)
        self.checkpoint("inline images kept")
        told = reporting(number, _without_content(report), Source.ANSWER, inline=inline)
        change = await self._update(job.id, lambda current, now: self._kept_in_hand(told(current, now), now), known=job)
        self.checkpoint("reported")
        return change

    def _kept_in_hand(self, job: Job, now: datetime) -> Job:
        """The job claimed by us in the same write, where it has images to be stored."""
        return transitions.claimed(job, self.holder, now) if job.pending else job

    async def _store_if_ours(self, change: Change) -> None:
        if change.applied and change.after.holder == self.holder and change.after.pending:
            await self._store(change.after)

    async def _store(self, job: Job) -> None:
        """Keeps the images whose time has come, and writes how each ended."""
        now = self.images.now()
        ready = [image for image in job.pending if image.retry_at is None or image.retry_at <= now]
        ends = await asyncio.gather(*(self.images.keep(job, image) for image in ready))
        ended: dict[int, Kept] = {image.index: end for image, end in zip(ready, ends, strict=True)}
        number = job.pending[0].attempt
        self.checkpoint("images kept")
        await self._update(job.id, lambda current, now: transitions.stored(current, number, ended, now), known=job)
        self.checkpoint("stored")
        await self._forget_spooled(job, ended)

    async def _forget_spooled(self, job: Job, ended: dict[int, Kept]) -> None:
        for image in job.pending:
            name = image.spooled
            if name is not None and isinstance(ended.get(image.index), Artifact):
                await self.blocking(lambda name=name: self.images.spool.delete(name))  # type: ignore[misc]

    # --- preparing ------------------------------------------------------------------------------------------------

    async def _prepared(self, job: Job) -> Prepared | None:
        """The call with its inputs; None when it cannot be made and the job was put back or failed."""
        try:
            operation = providers.operation(job.operation)
            request = operation.request.model_validate(job.params)
            settings = self.images.providers[job.provider]
            base = self.darkroom.settings.callback_base
            abilities = operation.abilities(request, has_callback=base is not None, options=settings.options)
            _check_key(job, abilities)
            pictures = await Inputs(self.darkroom.storage, self.transport, self.blocking).pictures(request)
        except InputError as error:
            await self._update(job.id, _unprepared(self.holder, error), known=job)
            return None
        except ValueError as error:
            broken = InputError(f"the record's parameters are refused: {type(error).__name__}", lasting=True)
            await self._update(job.id, _unprepared(self.holder, broken), known=job)
            return None
        call = operation.submit(request, self._context(job, transitions.next_number(job), settings, pictures))
        return Prepared(call, settings.base_url + call.path, request, operation, abilities)

    def _context(
        self, job: Job, number: int, settings: ProviderSettings, pictures: Mapping[str, InputImage] | None = None
    ) -> Context:
        base = self.darkroom.settings.callback_base
        keys = self.darkroom.settings.signing_keys() if base else ()
        return Context(
            attempt_key=transitions.attempt_key(job, number),
            callback_url=callback_url.callback_url(base, job.provider, job.id, number, keys) if base else None,
            api_key=settings.api_key.get_secret_value(),
            inputs=pictures or {},
            options=settings.options,
        )

    # --- what the sweep brings ------------------------------------------------------------------------------------

    async def attend(self, job: Job, living: frozenset[str]) -> None:
        """Looks at a job that is due: its holder died, it is time to poll, its deadline is over, or it is to be stored."""
        now = self.images.now()
        if job.holder is not None and job.holder not in living:
            await self._rescue(job, job.holder)
        elif schedule.is_overdue(job, now):
            await self._update(job.id, transitions.expired, known=job)
        elif self._is_for_others(job, now):
            await self.blocking(lambda: self.darkroom.repository.put_in_lane(job))
        elif schedule.is_poll_due(job, now):
            await self._poll(job)
        elif job.pending and job.holder is None:
            await self.run(job.id)

    def _is_for_others(self, job: Job, now: datetime) -> bool:
        """Whether the vendor must be asked, to whom this worker has no key: for the job's state, or for a fresh URL."""
        dead = any(image.external_id and image.expires_at and image.expires_at <= now for image in job.pending)
        asks = schedule.is_poll_due(job, now) or (dead and job.holder is None)
        return asks and job.provider not in self.images.providers

    async def _rescue(self, job: Job, dead: str) -> None:
        """A worker died over the job: what it had stored is found first; then its end counts as not seen."""
        log.warning("job %s: its worker %s is gone", job.id, dead)
        attempt = job.attempt
        found: Mapping[int, Inline] = {}
        if job.status is Status.SUBMITTING and attempt is not None and attempt.inline:
            try:
                found = await self.images.rescued(job, attempt.number)
            except StorageError as error:
                log.warning("job %s: its images cannot be looked for: %s", job.id, error)
                if error.retryable and not schedule.is_overdue(job, self.images.now()):
                    # They may lie there: nothing is declared unknown before the storage can be asked. It stays due.
                    return
        self.checkpoint("rescued")

        def change(current: Job, now: datetime) -> Job:
            if found and attempt and current.holder == dead and current.status is Status.SUBMITTING:
                return transitions.reported(current, attempt.number, _was_kept(found), now, inline=found)
            return transitions.outcome_lost(current, dead, now)

        await self._advance(job.id, change, known=job)

    async def resume_spooled(self) -> None:
        """What an earlier process on this host spooled and could not write into the record any more is reported now."""
        for job_id, number in await self.images.spooled_attempts():
            try:
                await self._resume(job_id, number)
            except JobNotFound:
                log.warning("job %s is forgotten; its spooled images stay in %s", job_id, self.images.spool.folder)

    async def _resume(self, job_id: str, number: int) -> None:
        job: Job = await self.blocking(lambda: self.darkroom.repository.get(job_id))
        attempt = find_attempt(job.attempts, number)
        if attempt is None or attempt.holder == self.holder:
            return
        if attempt.outcome in (Outcome.SUCCEEDED, Outcome.SURPLUS):
            await self._clear_spool(job, number)
            return
        found = await self.images.rescued(job, number)
        await self._advance(
            job_id,
            lambda current, now: transitions.reported(current, number, _was_kept(found), now, inline=found),
            known=job,
        )

    async def _clear_spool(self, job: Job, number: int) -> None:
        """Deletes what the record does not wait for: stored by a process that died before it could delete."""
        given_up = tuple(missing.image for missing in job.missing if missing.image)
        awaited = {image.spooled for image in (*job.pending, *given_up)}
        spool = self.images.spool
        for name in await self.blocking(spool.names):
            if name.startswith(f"{job.id}-{number}-") and name not in awaited:
                await self.blocking(lambda name=name: spool.delete(name))  # type: ignore[misc]

    async def _poll(self, job: Job) -> None:
        attempt, settings = job.attempt, self.images.providers.get(job.provider)
        if attempt is None or settings is None:
            return
        operation = providers.operation(job.operation)
        context = self._context(job, attempt.number, settings)
        call = operation.poll(attempt.external_id or context.attempt_key, context)
        report: Report | None = None
        try:
            response = await self.transport.send(
                call.method,
                settings.base_url + call.path,
                headers=call.headers,
                json=call.json,
                timeout_seconds=min(call.timeout_seconds, POLL_TIMEOUT_SECONDS),
                max_bytes=_MAX_POLL_BYTES,
            )
            report = operation.read_poll(operation.request.model_validate(job.params), response)
        except TransportError as error:
            log.info("job %s: poll: %s", job.id, error)
        if report is None:
            await self._update(job.id, transitions.poll_postponed, known=job)
            return
        inline = await self.images.keep_inline(job, attempt.number, report)
        self.checkpoint("polled")
        told = reporting(attempt.number, _without_content(report), Source.POLL, inline=inline)
        change = await self._update(
            job.id,
            lambda current, now: self._kept_in_hand(transitions.poll_postponed(told(current, now), now), now),
            known=job,
        )
        await self._store_if_ours(change)

    # --- Redis ----------------------------------------------------------------------------------------------------

    async def _update(self, job_id: str, change: Transition, *, known: Job | None = None) -> Change:
        """A change after which this process goes on itself, or the sweep does."""
        return await self.updates.update(job_id, change, known=known)

    async def _advance(self, job_id: str, change: Transition, *, known: Job) -> Change:
        """A change after which any worker may go on."""
        advance = self.darkroom.advance
        done: Change = await self.blocking(lambda: advance(job_id, change, known=known))
        return done


def _recovery(abilities: Abilities) -> Recovery:
    if abilities.idempotent:
        return Recovery.KEY
    if abilities.callback:
        return Recovery.CALLBACK
    return Recovery.LOOKUP if abilities.lookup else Recovery.NONE


def _check_key(job: Job, abilities: Abilities) -> None:
    """An attempt that was sent under a key goes out without one under other settings, and would be paid a second time."""
    if transitions.is_resend(job) and not abilities.idempotent:
        raise InputError("it was sent under a key that this worker's settings do without", lasting=False)


def _not_sent(error: NotSent) -> Failed:
    return Failed(
        Code.PROVIDER_ERROR,
        f"the provider could not be reached: {error}",
        retryable=True,
        charged=Charged.NO,
        not_sent=True,
    )


def _without_content(report: Report) -> Report:
    """The report without the bytes of images, which were kept and belong in no record."""
    if not isinstance(report, Succeeded):
        return report
    bare = tuple(Image(image.index) if image.content is not None else image for image in report.images)
    return Succeeded(bare, report.external_id, report.cost)


def _was_kept(found: Mapping[int, Inline]) -> Succeeded:
    """The report of an answer of which only the kept images are left."""
    return Succeeded(tuple(Image(index) for index in sorted(found)))


def _unprepared(holder: str, error: InputError) -> Transition:
    return lambda job, now: transitions.input_failed(job, holder, str(error), now, lasting=error.lasting)
