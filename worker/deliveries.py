"""Sends webhooks: Standard Webhooks messages whose body is the job's JSON, at least once.

A slow or dead endpoint delays no other: each host has a few slots of its own, and a delivery that gets none is postponed.
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

from jobs import logs, schedule, transitions
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

#: how long an endpoint may take, in seconds; with the wait for a slot it is less than the sweep's lease, or two workers would deliver
#: the same message at once
TIMEOUT_SECONDS = 8.0
#: a job's next delivery follows at once if all before it took less than this, in seconds
_QUICK_SECONDS = 0.5
#: the most that is read of an endpoint's answer
_MAX_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class WebhookSender:
    """Sends the webhooks of one process, on its event loop."""

    darkroom: Darkroom
    transport: Transport
    updates: Updates
    #: runs a blocking call in the thread pool
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]
    now: Callable[[], datetime]
    hosts: HostLimiter = field(default_factory=HostLimiter)

    async def deliver(self, job: Job) -> None:
        """Try the job's due deliveries in their order, and record each try; those that do not follow at once stay due."""
        host = host_of(job.webhook_url or "")
        async with self.hosts.slot(host) as free:
            if not free:
                await self._update(job, transitions.deliveries_postponed)
                return
            started_at = asyncio.get_running_loop().time()
            for delivery in schedule.due_deliveries(job, self.now()):
                attempt = await self._try(job, host, delivery)
                if not attempt.is_accepted or asyncio.get_running_loop().time() - started_at > _QUICK_SECONDS:
                    return

    async def _try(self, job: Job, host: str, delivery: Delivery) -> Try:
        """Send the message once and record the try. Every failure is recorded too, so that it is retried later."""
        started_at = asyncio.get_running_loop().time()
        try:
            attempt = Try(self.now(), status=await self._send(job, delivery))
        except (DarkroomError, TransportError) as error:
            attempt = Try(self.now(), problem=str(error))
        except Exception as error:
            log.exception("job %s: delivery %s", job.id, delivery.id)
            attempt = Try(self.now(), problem=f"it could not be sent: {type(error).__name__}")
        self.hosts.record(host, answered=attempt.status is not None)
        await self._update(job, lambda current, _: transitions.delivery_tried(current, delivery.id, attempt))
        logs.event(
            "webhook sent",
            level=logging.INFO if attempt.is_accepted else logging.WARNING,
            job=job.id,
            operation=job.operation,
            status=delivery.event,
            outcome="delivered" if attempt.is_accepted else "failed",
            http_status=attempt.status,
            duration_seconds=asyncio.get_running_loop().time() - started_at,
        )
        return attempt

    async def _update(self, job: Job, change: Transition) -> None:
        with suppress(JobNotFound):
            await self.updates.update(job.id, change)

    async def _send(self, job: Job, delivery: Delivery) -> int:
        """Return the status that the endpoint answered. Raises TransportError, or DarkroomError if nothing can be sent."""
        secrets = [secret.get_secret_value() for secret in self.darkroom.settings.webhook_secrets]
        if not secrets:
            raise DarkroomError("DARKROOM_WEBHOOK_SECRETS is not set: no webhook is sent without a signature")
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
    """Return the headers of a Standard Webhooks message, with one signature for each secret, so that secrets can be rotated."""
    signatures = [Webhook(secret).sign(message_id, at, body.decode()) for secret in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
