"""Celery's consumer, started again after errors with exponential back-off."""

from __future__ import annotations

import time

from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown

#: the shortest and the longest pause before the consumer is started again, in seconds
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 10.0
#: after so long without an error the next pause is the shortest again, in seconds
HEALTHY_SECONDS = 30.0


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery has no types
    """Pauses after each error that ended the consumer, so that an outage of the broker costs little."""

    _pause_seconds = MIN_PAUSE_SECONDS
    _failed_at = float("-inf")

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Log that the connection could not be made, and pause."""
        super().on_connection_error_before_connected(exc)
        self._pause()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Log the error, close the connection, and pause."""
        super().on_connection_error_after_connected(exc)
        self._pause()

    def _pause(self) -> None:
        healthy = time.monotonic() - self._failed_at > HEALTHY_SECONDS
        self._pause_seconds = MIN_PAUSE_SECONDS if healthy else min(2 * self._pause_seconds, MAX_PAUSE_SECONDS)
        until = time.monotonic() + self._pause_seconds
        while time.monotonic() < until:
            maybe_shutdown()
            time.sleep(0.05)
        self._failed_at = time.monotonic()
