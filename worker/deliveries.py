"""Delivers what jobs tell of themselves: Standard Webhooks messages whose body is the job's JSON, at least once.

A receiver that is slow or dead delays nobody else: each host has a few places of its own, and what finds none is put off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from standardwebhooks import Webhook

from jobs import schedule, transitions
from jobs.address_guard import host_of
from jobs.darkroom import Darkroom
from jobs.delivery import Delivery, Try
from jobs.errors import DarkroomError, JobNotFound
from jobs.job import Job
from jobs.state.repository import Transition
from jobs.view import JobView

from .host_limiter import HostLimiter
from .transport import TooLarge, Transport, TransportError
from .updates import Updates

log = logging.getLogger(__name__)

#: how long a receiver may take; with the wait for a place it must be less than the sweep's lease, or two workers deliver at once
TIMEOUT_SECONDS = 8.0
#: one job's further deliveries follow at once as long as the first ones took less than this
_BRISK_SECONDS = 0.5
#: what a receiver answers is not read beyond this
_MAX_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class Notifier:
    """Delivers for one process, on its event loop."""

    darkroom: Darkroom
    transport: Transport
    updates: Updates
    #: runs a blocking call on the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]
    now: Callable[[], datetime]
    places: HostLimiter = field(default_factory=HostLimiter)

    async def deliver(self, job: Job) -> None:
        """Tries what is to be delivered now, in its order, and writes how it ended; what does not follow at once comes again."""
        host = host_of(job.webhook_url or "")
        async with self.places.place(host) as free:
            if not free:
                await self._update(job, transitions.deliveries_postponed)
                return
            began = asyncio.get_running_loop().time()
            for delivery in schedule.due_deliveries(job, self.now()):
                attempt = await self._tried(job, host, delivery)
                if not attempt.is_accepted or asyncio.get_running_loop().time() - began > _BRISK_SECONDS:
                    return

    async def _tried(self, job: Job, host: str, delivery: Delivery) -> Try:
        attempt = await self._sent(job, delivery)
        self.places.heard(host, answered=attempt.status is not None)
        await self._update(job, lambda current, _: transitions.delivery_tried(current, delivery.id, attempt))
        return attempt

    async def _update(self, job: Job, change: Transition) -> None:
        with suppress(JobNotFound):
            await self.updates.update(job.id, change)

    async def _sent(self, job: Job, delivery: Delivery) -> Try:
        """One try; whatever goes wrong is its problem, so that it is tried again later and not at once."""
        try:
            return Try(self.now(), status=await self._status(job, delivery))
        except (DarkroomError, TransportError) as error:
            return Try(self.now(), problem=str(error))
        except Exception as error:
            log.exception("job %s: delivery %s", job.id, delivery.id)
            return Try(self.now(), problem=f"it could not be made: {type(error).__name__}")

    async def _status(self, job: Job, delivery: Delivery) -> int:
        """What the receiver answered. Raises TransportError, or DarkroomError when there is nothing to be sent."""
        secrets = [secret.get_secret_value() for secret in self.darkroom.settings.webhook_secrets]
        if not secrets:
            raise DarkroomError("DARKROOM_WEBHOOK_SECRETS is not set: nothing is sent unsigned")
        body = await self.blocking(lambda: JobView.of(self.darkroom.bound(job)).model_dump_json().encode())
        try:
            response = await self.transport.send(
                "POST",
                job.webhook_url or "",
                headers=signed_headers(secrets, delivery.id, self.now(), body),
                content=body,
                timeout_seconds=TIMEOUT_SECONDS,
                max_bytes=_MAX_ANSWER_BYTES,
                guarded=True,
            )
        except TooLarge as error:
            return error.status
        return response.status


def signed_headers(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers of a Standard Webhooks message: one signature for each secret, so that secrets can be rotated."""
    signatures = [Webhook(secret).sign(message_id, at, body.decode()) for secret in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
