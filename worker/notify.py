"""Delivers what jobs tell of themselves: Standard Webhooks messages whose body is the job's JSON, at least once.

A receiver that is slow or dead delays nobody else: each host has a few places of its own, and what finds none comes again
with the sweep.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from jobs.delivery import Delivery, Try
from jobs.errors import JobNotFound
from jobs.job import Job
from jobs.lifecycle import Darkroom
from jobs.view import view

from .transport import Transport, TransportError

#: how long a receiver may take
TIMEOUT_SECONDS = 10.0
#: deliveries under way to one host, and to all
PER_HOST, IN_ALL = 8, 128
#: what a receiver answers is not read beyond this
_MAX_ANSWER_BYTES = 64 << 10


class Places:
    """Counts deliveries under way, by host. Thread-safe."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def place(self, host: str) -> Iterator[bool]:
        """The value says whether there was a place."""
        with self._lock:
            free = self._taken[host] < PER_HOST and self._taken.total() < IN_ALL
            self._taken[host] += free
        try:
            yield free
        finally:
            with self._lock:
                self._taken[host] -= free
                if not self._taken[host]:
                    del self._taken[host]


@dataclass(frozen=True)
class Notifier:
    """Delivers for one process."""

    darkroom: Darkroom
    transport: Transport
    blocking: Callable[[Callable[[], Any]], Awaitable[Any]]
    now: Callable[[], datetime]
    places: Places = field(default_factory=Places)

    async def deliver(self, job: Job) -> None:
        """Tries each delivery of the job whose time has come, in their order, and writes how it ended."""
        host = urlsplit(job.notify_url or "").hostname or ""
        with self.places.place(host) as free:
            if not free:
                return
            for delivery in job.deliverable(self.now()):
                await self._tried(job, delivery)

    async def _tried(self, job: Job, delivery: Delivery) -> None:
        attempt = await self._sent(job, delivery)
        advance = self.darkroom.repository.update

        def change(current: Job, now: datetime) -> Job:
            return current.delivered(delivery.id, attempt, now)

        try:
            await self.blocking(lambda: advance(job.id, change))
        except JobNotFound:
            return

    async def _sent(self, job: Job, delivery: Delivery) -> Try:
        secrets = [secret.get_secret_value() for secret in self.darkroom.settings.notify_secrets]
        if not secrets:
            return Try(self.now(), problem="DARKROOM_NOTIFY_SECRETS is not set: nothing is sent unsigned")
        body = await self.blocking(lambda: json.dumps(view(self.darkroom.bound(job))).encode())
        try:
            response = await self.transport.send(
                "POST",
                job.notify_url or "",
                headers=signed_headers(secrets, delivery.id, self.now(), body),
                content=body,
                timeout_seconds=TIMEOUT_SECONDS,
                max_bytes=_MAX_ANSWER_BYTES,
                guarded=True,
            )
        except TransportError as error:
            return Try(self.now(), problem=str(error))
        return Try(self.now(), status=response.status)


def signed_headers(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers of a Standard Webhooks message: one signature for each secret, so that secrets can be rotated."""
    signatures = [Webhook(secret).sign(message_id, at, body.decode()) for secret in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
