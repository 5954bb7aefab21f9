"""Darkroom's receiver: everything that speaks HTTP in, as one Flask application.

`granian --interface wsgi --factory webhooks:create_app` serves it; so does any other WSGI server. The path of a callback
holds its token: leave access logs off, or let them show no paths.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from flask import Flask

from jobs import logs, providers
from jobs.darkroom import Darkroom
from jobs.settings import Settings, provider_settings
from jobs.state.api_keys import KeyStore
from jobs.state.rate_limit import Limit

from . import api, callbacks, docs, files, health
from .api import Api
from .auth import Keys
from .problems import QuietFlask, handle_with
from .waiting import Waiters, threads_of

__all__ = ["create_app"]

#: a blip of Redis is sat out for so long before a request is answered 503
PATIENCE_SECONDS = 1.0
#: a stream of events ends after so long, and its client comes back
STREAM_SECONDS = 600.0


def create_app(
    settings: Settings | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    threads: int | None = None,
    stream_seconds: float = STREAM_SECONDS,
) -> Flask:
    """The WSGI application.

    `environ` holds the providers' own settings (the process's environment by default); `threads` is how many threads of
    this process answer requests, where GRANIAN_BLOCKING_THREADS does not say so; a stream of events ends after
    `stream_seconds`. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    settings = settings or Settings.read()
    logs.install(logs.secrets_of(settings, environ))
    keys = settings.signing_keys()
    darkroom = Darkroom.open(settings, patience_seconds=PATIENCE_SECONDS)
    options = {name: provider_settings(name, environ).options for name in providers.names()}

    app = QuietFlask("webhooks", static_folder=None)
    app.config.update(PROVIDE_AUTOMATIC_OPTIONS=False)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    handle_with(app)
    receiver = callbacks.Receiver.of(darkroom, options, keys)
    app.register_blueprint(callbacks.blueprint(receiver))
    app.register_blueprint(api.blueprint(_api(darkroom, threads or threads_of(environ), stream_seconds)))
    app.register_blueprint(docs.blueprint())
    app.register_blueprint(files.blueprint(darkroom.storage, keys))
    app.register_blueprint(health.blueprint(darkroom, receiver.spooled.spool))
    app.wsgi_app = callbacks.ShortCut(app, receiver)  # type: ignore[method-assign]
    return app


def _api(darkroom: Darkroom, threads: int, stream_seconds: float) -> Api:
    settings = darkroom.settings
    keys = Keys([key.get_secret_value() for key in settings.api_keys], KeyStore.open(settings.redis_url))
    limit = Limit.open(settings.redis_url, settings.rate) if settings.rate else None
    return Api(darkroom, keys, limit, Waiters(threads), stream_seconds)
