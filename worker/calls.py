"""Performs the calls of providers: submit, poll (which is also the lookup by our own key) and re-mint.

Each method is one HTTP exchange. The provider translates in both directions; the transport says whether a failed exchange was surely
not sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobs import callback_url, logs, providers, transitions
from jobs.attempt import Attempt, Recovery
from jobs.errors import InvalidRequest
from jobs.images import PendingImage
from jobs.job import Job
from jobs.providers._contract import Abilities, Call, Context, InputImage, Operation
from jobs.providers._redaction import without_prompts
from jobs.report import Charged, Code, Failed, Image, Report, Running, Succeeded
from jobs.request import Request
from jobs.settings import ProviderSettings, Settings

from .http.threads import compute
from .inputs import InputError, Inputs
from .transport import NotSent, Reserve, Transport, TransportError

log = logging.getLogger(__name__)

#: the largest answer to a submit, in bytes: eight images as base64
MAX_ANSWER_BYTES = 256 << 20
#: the largest answer to a poll, and to a re-mint, in bytes
_MAX_POLL_BYTES, _MAX_REMINT_BYTES = 8 << 20, 1 << 20
#: the longest time for a poll, in seconds, so that a provider that lets polls hang does not delay the due jobs of others
POLL_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Submission:
    """Everything that is needed to send one attempt."""

    #: the attempt's number on the job's ledger
    number: int
    call: Call
    url: str
    request: Request
    operation: Operation
    abilities: Abilities

    @property
    def recovery(self) -> Recovery:
        """How its outcome can be learned if the answer is lost."""
        if self.abilities.idempotent:
            return Recovery.KEY
        if self.abilities.callback:
            return Recovery.CALLBACK
        return Recovery.LOOKUP if self.abilities.lookup else Recovery.NONE


@dataclass(frozen=True)
class ProviderCalls:
    """Performs the provider calls of one process."""

    settings: Settings
    #: the providers whose keys this worker has
    providers: Mapping[str, ProviderSettings]
    transport: Transport
    inputs: Inputs
    #: called with the name of each step, so that a test can end the process there
    checkpoint: Callable[[str], None] = lambda _: None

    async def prepare(self, job: Job) -> Submission:
        """Fetch the input images and translate the request. Raises InputError when the attempt cannot be sent now, or ever."""
        settings, number = self.providers[job.provider], transitions.next_number(job)
        has_callback = self.settings.callback_base is not None
        try:
            operation = providers.operation(job.operation)
            request = operation.request.model_validate(job.params)
            abilities = operation.abilities(request, has_callback=has_callback, options=settings.options)
        except (InvalidRequest, ValueError) as error:
            raise InputError(f"the record's parameters are not valid: {type(error).__name__}", lasting=True) from None
        if transitions.is_resend(job) and not abilities.idempotent:
            # Without the key under which it was sent before, it would be paid a second time.
            raise InputError(
                "it was sent under an idempotency key that this worker's settings do not use", lasting=False
            )
        images = await self.inputs.fetch(request)
        context = self._context(job, number, settings, images)
        size = sum(len(image.content) for image in images.values())
        call = await compute(size, operation.submit, request, context)
        return Submission(number, call, settings.base_url + call.path, request, operation, abilities)

    async def submit(self, job: Job, submission: Submission, reserve: Reserve) -> Report | None:
        """Send the attempt, and return what the provider answered; None when the request may have been read and no answer came.

        The memory for the answer is taken by `reserve`.
        """
        call, started_at = submission.call, asyncio.get_running_loop().time()
        logs.event("job sent", job=job.id, attempt=submission.number, operation=job.operation)
        report: Report | None = None
        try:
            response = await self.transport.send(
                call.method,
                submission.url,
                headers=call.headers,
                json=call.json,
                form=call.form,
                files=call.files,
                timeout_seconds=call.timeout_seconds,
                max_bytes=MAX_ANSWER_BYTES,
                reserve=reserve,
            )
            self.checkpoint("answered")
            read = submission.operation.read_answer
            report = without_prompts(await compute(len(response.body), read, submission.request, response), job.params)
        except NotSent as error:
            said = f"the provider could not be reached: {error}"
            report = Failed(Code.PROVIDER_ERROR, said, retryable=True, charged=Charged.NO, not_sent=True)
        except TransportError as error:
            log.warning("job %s attempt %s: %s", job.id, submission.number, error)
        _log_answer(job, submission, report, asyncio.get_running_loop().time() - started_at)
        return report

    async def poll(self, job: Job, attempt: Attempt) -> Report | None:
        """Ask for an attempt, by the provider's id or by our own key, and return the report; None when there is nothing new."""
        settings, operation = self.providers[job.provider], providers.operation(job.operation)
        context = self._context(job, attempt.number, settings)
        call = operation.poll(attempt.external_id or context.attempt_key, context)
        try:
            response = await self.transport.send(
                call.method,
                settings.base_url + call.path,
                headers=call.headers,
                json=call.json,
                timeout_seconds=min(call.timeout_seconds, POLL_TIMEOUT_SECONDS),
                max_bytes=_MAX_POLL_BYTES,
            )
        except TransportError as error:
            log.info("job %s: poll: %s", job.id, error)
            return None
        request = operation.request.model_validate(job.params)
        report = await compute(len(response.body), operation.read_poll, request, response)
        return None if report is None else without_prompts(report, job.params)

    async def remint(self, job: Job, image: PendingImage) -> Image | None:
        """Have the provider sign the image's URL again; None when it cannot, or did not."""
        settings, operation = self.providers.get(job.provider), providers.operation(job.operation)
        if settings is None:  # no other worker could either: the provider gave the image no id
            return None
        call = operation.remint(
            Image(image.index, external_id=image.external_id), self._context(job, image.attempt, settings)
        )
        if call is None:
            return None
        try:
            response = await self.transport.send(
                call.method,
                settings.base_url + call.path,
                headers=call.headers,
                timeout_seconds=call.timeout_seconds,
                max_bytes=_MAX_REMINT_BYTES,
            )
        except TransportError as error:
            log.info("job %s: a new URL for image %s: %s", job.id, image.index, error)
            return None
        return operation.read_remint(response)

    def _context(
        self, job: Job, number: int, settings: ProviderSettings, images: Mapping[str, InputImage] | None = None
    ) -> Context:
        base = self.settings.callback_base
        keys = self.settings.signing_keys() if base else ()
        return Context(
            attempt_key=transitions.attempt_key(job, number),
            callback_url=callback_url.callback_url(base, job.provider, job.id, number, keys) if base else None,
            api_key=settings.api_key.get_secret_value(),
            inputs=images or {},
            options=settings.options,
        )


def _log_answer(job: Job, submission: Submission, report: Report | None, duration_seconds: float) -> None:
    fields: logs.Fields = {"outcome": "unknown", "charged": "unknown"}
    match report:
        case Running():
            fields = {"outcome": "accepted"}
        case Succeeded():
            cost = report.cost or submission.operation.price(submission.request)
            fields = {"outcome": "succeeded", "charged": "yes", "images": len(report.images), **logs.cost_fields(cost)}
        case Failed():
            outcome = "not_sent" if report.not_sent else "failed"
            fields = {"outcome": outcome, "code": report.code, "charged": report.charged}
    logs.event(
        "job answered",
        fields,
        level=logging.INFO if report is not None else logging.WARNING,
        job=job.id,
        attempt=submission.number,
        operation=job.operation,
        provider=job.provider,
        duration_seconds=duration_seconds,
    )
