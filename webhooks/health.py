"""`GET /healthz`: whether the process is alive. `GET /readyz`: whether Redis and the storage answer it."""

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

#: a result is reused for so many seconds, so that frequent checks cost nothing
CACHE_SECONDS = 1.0


class Readiness:
    """Checks Redis and the storage, in one thread at a time: a store that hangs must not hold up the others."""

    def __init__(self, darkroom: Darkroom) -> None:
        self._checks = {"redis": darkroom.repository.ping, "storage": darkroom.storage.check}
        self._checking = threading.Lock()
        self._errors: Mapping[str, str] = dict.fromkeys(self._checks, "not checked yet")
        self._checked_at = float("-inf")

    def errors(self) -> Mapping[str, str]:
        """The types of the errors of what does not answer, by name; the latest result while another thread checks."""
        if time.monotonic() - self._checked_at >= CACHE_SECONDS and self._checking.acquire(blocking=False):
            try:
                errors = {}
                for name, check in self._checks.items():
                    try:
                        check()
                    except Unavailable as error:
                        # The message may name hosts and folders, so it is logged only.
                        _log.warning("%s does not answer: %s", name, error)
                        errors[name] = type(error).__name__
                self._errors, self._checked_at = errors, time.monotonic()
            finally:
                self._checking.release()
        return self._errors


def blueprint(darkroom: Darkroom, spool: CallbackSpool) -> Blueprint:
    """The two routes. `callbacks_on_disk` counts the callbacks that wait for Redis."""
    routes, readiness = Blueprint("health", __name__), Readiness(darkroom)

    @routes.get("/healthz")
    def get_health() -> Response:
        return jsonify(status="ok", callbacks_on_disk=len(spool))

    @routes.get("/readyz")
    def get_readiness() -> Response:
        if errors := readiness.errors():
            return unavailable(f"Not ready: {' and '.join(errors)} did not answer.", faults=dict(errors))
        return jsonify(status="ok")

    return routes
