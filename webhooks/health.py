"""`GET /healthz`: the process lives. `GET /readyz`: what it needs answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from flask import Blueprint, Response, jsonify

from jobs import Unavailable
from jobs.darkroom import Darkroom

from .problems import unavailable
from .spooled import CallbackSpool

_log = logging.getLogger("darkroom.webhooks")

#: how long a finding is told again; whoever asks more often learns nothing new and costs nothing
FRESH_SECONDS = 1.0


class Readiness:
    """Asks Redis and the storage, one thread at a time: a store that hangs must not hold the threads of callbacks."""

    def __init__(self, darkroom: Darkroom) -> None:
        self._darkroom = darkroom
        self._asking = threading.Lock()
        self._found: Mapping[str, str] = {"redis": "not asked yet", "storage": "not asked yet"}
        self._found_at = float("-inf")

    def faults(self) -> Mapping[str, str]:
        """What does not answer, by name, and the kind of its error; what was found last while another thread asks."""
        if time.monotonic() - self._found_at >= FRESH_SECONDS and self._asking.acquire(blocking=False):
            try:
                self._found = self._asked()
                self._found_at = time.monotonic()
            finally:
                self._asking.release()
        return self._found

    def _asked(self) -> Mapping[str, str]:
        found = {}
        for name, ask in (("redis", self._darkroom.repository.ping), ("storage", self._darkroom.storage.check)):
            try:
                ask()
            except Unavailable as error:
                # The message may name hosts and folders: it is for our log.
                _log.warning("%s does not answer: %s", name, error)
                found[name] = type(error).__name__
        return found


def blueprint(darkroom: Darkroom, spool: CallbackSpool) -> Blueprint:
    """The two routes. `callbacks_on_disk` counts those that came while Redis was away and wait for it."""
    routes, readiness = Blueprint("health", __name__), Readiness(darkroom)

    @routes.get("/healthz")
    def lives() -> Response:
        return jsonify(status="ok", callbacks_on_disk=len(spool))

    @routes.get("/readyz")
    def ready() -> Response:
        if faults := readiness.faults():
            return unavailable(f"Not ready: {' and '.join(faults)} did not answer.", faults=dict(faults))
        return jsonify(status="ok")

    return routes
